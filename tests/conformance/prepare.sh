#!/usr/bin/env bash
# prepare.sh PROGRAM BATTERY FOLDER PORT: puts the configurations of this folder, the battery's zone, a signing key and a certificate
# into FOLDER, to be served on 127.0.0.1:PORT.
set -euo pipefail
program=$1 battery=$2 folder=$3 port=$4
here=$(dirname "$0")
cp "$battery/zones/example.com.zone" "$folder/"
for file in "$here"/*.toml; do
  sed "s/127\.0\.0\.1:5399/127.0.0.1:$port/" "$file" >"$folder/$(basename "$file")"
done
[ -f "$folder/example.com.key" ] || "$program" key new example.com --out "$folder/example.com.key" >/dev/null 2>&1
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=example.com \
  -addext subjectAltName=DNS:example.com -keyout "$folder/key.pem" -out "$folder/cert.pem" 2>/dev/null
