//! Every kind of answer that the zone of `validators.rs` gives, and what validators say of it.

/// Name, type, response code, and who says what: `both` (delv and a resolver say secure), `resolver` (it alone: delv follows no
/// referral), `insecure` (a resolver finds an answer that nothing signs).
const KINDS: &str = "
@             SOA     NOERROR   both
@             NS      NOERROR   both
@             DNSKEY  NOERROR   both
@             CDS     NOERROR   both
@             CDNSKEY NOERROR   both
@             NSEC    NOERROR   both
@             A       NOERROR   both      a route at the apex
@             MX      NOERROR   both      and what stands beside it
@             CAA     NOERROR   both      NODATA at the apex
@             ANY     NOERROR   both
www           A       NOERROR   both      static
www           AAAA    NOERROR   both      NODATA
big           TXT     NOERROR   both      too long for UDP
WwW           TXT     NOERROR   both      letters as the client writes them
www           ANY     NOERROR   both
nope          A       NXDOMAIN  both
a.b.nope      TXT     NXDOMAIN  both
below.www     A       NXDOMAIN  both
zzz           A       NXDOMAIN  both      after the last name of the chain
ent           A       NOERROR   both      an empty non-terminal
b.ent         ANY     NOERROR   both
alias         A       NOERROR   both      CNAME
alias         MX      NOERROR   both      CNAME to NODATA
alias         CNAME   NOERROR   both
tonope        A       NXDOMAIN  both      CNAME to nothing
toroute       A       NOERROR   both      CNAME to a route
toroute       AAAA    NOERROR   both
toroute       TXT     NOERROR   both
chain         A       NOERROR   both      CNAME through a wildcard CNAME to a wildcard
x.wild        A       NOERROR   both      wildcard CNAME
x.wild        MX      NOERROR   both
*.wild        CNAME   NOERROR   both
a.b.deep      A       NOERROR   both      wildcard, two labels
a.b.deep      TXT     NOERROR   both      wildcard NODATA
deep          A       NOERROR   both      the name above a wildcard
x.moved       A       NOERROR   both      DNAME
nope.www.moved A      NOERROR   both      DNAME onto a wildcard
moved         DNAME   NOERROR   both
moved         A       NOERROR   both      NODATA at a DNAME
x.gone        A       NXDOMAIN  both      DNAME to nothing
x.app         A       NOERROR   both      wildcard route
x.app         AAAA    NOERROR   both
x.app         MX      NOERROR   both      NODATA of a wildcard route
x.app         ANY     NOERROR   both
y.x.app       A       NOERROR   both
*.app         A       NOERROR   both
app           A       NOERROR   both
near          A       NOERROR   both      by latency
near          AAAA    NOERROR   both
near          HTTPS   NOERROR   both      NODATA of a route
pool          A       NOERROR   both      more endpoints than max-answers
share         A       NOERROR   both      weighted
share         AAAA    NOERROR   both      NODATA: no region has IPv6
mixed         A       NOERROR   both      a route beside static records
mixed         TXT     NOERROR   both
name          A       NOERROR   both      a route of names
name          CNAME   NOERROR   both
name          AAAA    NOERROR   both      names that have no such record
out           A       NOERROR   insecure  a route of names in an unsigned zone
secure        DS      NOERROR   both      a signed delegation
secure        SOA     NOERROR   resolver
www.secure    A       NOERROR   resolver
nope.secure   A       NXDOMAIN  resolver
tosecure      A       NOERROR   resolver  CNAME across the delegation
lame          DS      NOERROR   both      a proof that there is none
lame          SOA     NOERROR   insecure
www.lame      A       NOERROR   insecure
nope.lame     A       NXDOMAIN  insecure
tolame        A       NOERROR   insecure
child         DS      NOERROR   both      a signed zone served beside this one
child         SOA     NOERROR   resolver
www.child     A       NOERROR   resolver
x.child       A       NXDOMAIN  resolver
tochild       A       NOERROR   resolver
plain         DS      NOERROR   both      an unsigned one
www.plain     A       NOERROR   insecure
x.plain       A       NXDOMAIN  insecure
";

/// A line of [`KINDS`].
pub struct Kind {
    pub name: String,
    pub qtype: String,
    pub rcode: &'static str,
    /// `delv` can say so by asking the zone's server alone.
    pub is_for_delv: bool,
    /// A resolver finds it signed.
    pub is_secure: bool,
}

/// All of them.
pub fn kinds() -> Vec<Kind> {
    let kind = |line: &'static str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let name = if words[0] == "@" { "example.com.".into() } else { format!("{}.example.com.", words[0]) };
        let is_secure = match words[3] {
            "both" | "resolver" => true,
            "insecure" => false,
            other => panic!("{other}"),
        };
        Kind { name, qtype: words[1].into(), rcode: words[2], is_for_delv: words[3] == "both", is_secure }
    };
    KINDS.lines().filter(|line| !line.is_empty()).map(kind).collect()
}
