$TTL 3600
@         SOA   ns1 hostmaster ( 2024061001 7200 1800 259200 300 )
@         NS    ns1
@         NS    ns2
ns1       A     192.0.2.53
ns1       AAAA  2001:db8:1::53
ns2       A     198.51.100.53

@         MX    10 mail.example.com.
@         TXT   "v=spf1 mx -all"
_sip._tcp SRV   10 5 5060 sip.example.com.

app       60    DYNA  geoip!app
*.app     60    DYNA  geoip!app
accounts  60    DYNA  geoip!accounts
db        15    DYNA  metafo!db
static    300   DYNA  multifo!static
beta      60    DYNA  weighted!beta
