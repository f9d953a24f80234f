#!/usr/bin/env sh
# For acme.sh: put this file into ~/.acme.sh/dnsapi/ and isochrone-acme into the PATH, then
#   acme.sh --issue --dns dns_isochrone --dnssleep 1 -d app.geo.example.com -d '*.app.geo.example.com'

dns_isochrone_add() {
  isochrone-acme present "$1" "$2"
}

dns_isochrone_rm() {
  isochrone-acme cleanup "$1" "$2"
}
