//! Sockets in, sockets out: UDP and TCP around the answering core; knows no DNS rules.
