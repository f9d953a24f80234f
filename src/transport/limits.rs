//! Which TCP connections are open, whose they are, and which has been idle longest (RFC 7766 §6.2, RFC 9210 §4). Pure
//! bookkeeping in constant time; must never know of sockets or clocks: "idle longest" is the order of the last touches.

use std::{collections::HashMap, net::IpAddr};

use crate::config::model::Limits;

/// One client for the limits: an IPv4 address, or an IPv6 /56 (what a household or a host with many addresses gets).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientNetwork {
    /// The address.
    V4(u32),
    /// The upper 56 bits.
    V6(u64),
}

/// A connection in a [`ConnectionTable`]; never means another one, even after it is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionId {
    index: usize,
    generation: u64,
}

/// The open connections, each with a handle to close it by.
#[derive(Debug)]
pub struct ConnectionTable<H> {
    entries: Vec<Option<Entry<H>>>,
    free: Vec<usize>,
    all: List,
    clients: HashMap<ClientNetwork, List>,
    generation: u64,
}

#[derive(Debug)]
struct Entry<H> {
    handle: H,
    client: ClientNetwork,
    generation: u64,
    /// Neighbours in the list of all, and in the client's own.
    links: [Links; 2],
}

#[derive(Debug, Clone, Copy, Default)]
struct Links {
    idler: Option<usize>,
    fresher: Option<usize>,
}

/// A doubly linked list through the entries, the idlest first.
#[derive(Debug, Clone, Copy, Default)]
struct List {
    idlest: Option<usize>,
    freshest: Option<usize>,
    len: usize,
}

const ALL: usize = 0;
const OWN: usize = 1;

impl ClientNetwork {
    /// The network that `address` counts for.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => ClientNetwork::V4(address.to_bits()),
            IpAddr::V6(address) => ClientNetwork::V6((address.to_bits() >> 72) as u64),
        }
    }
}

impl<H> Default for ConnectionTable<H> {
    fn default() -> Self {
        ConnectionTable {
            entries: Vec::new(),
            free: Vec::new(),
            all: List::default(),
            clients: HashMap::new(),
            generation: 0,
        }
    }
}

impl<H> ConnectionTable<H> {
    /// How many are open.
    pub fn len(&self) -> usize {
        self.all.len
    }

    /// True when none is open.
    pub fn is_empty(&self) -> bool {
        self.all.len == 0
    }

    /// While one more connection of `client` would be too many: takes out the one to close for it, the client's own that has
    /// been idle longest if the client has its share, else the idlest of all. Call until `None`.
    pub fn make_room(&mut self, client: ClientNetwork, limits: &Limits) -> Option<H> {
        let own = self.clients.get(&client).copied().unwrap_or_default();
        let victim = if own.len >= limits.tcp_per_client {
            own.idlest
        } else if self.all.len >= limits.tcp_connections {
            self.all.idlest
        } else {
            None
        };
        victim.map(|index| self.take(index))
    }

    /// Takes out the connection that has been idle longest.
    pub fn take_idlest(&mut self) -> Option<H> {
        self.all.idlest.map(|index| self.take(index))
    }

    /// Adds a connection, as the freshest. `handle` is made once its ID is known.
    pub fn insert(&mut self, client: ClientNetwork, handle: impl FnOnce(ConnectionId) -> H) -> ConnectionId {
        self.generation += 1;
        let generation = self.generation;
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() - 1
        });
        let id = ConnectionId { index, generation };
        self.entries[index] = Some(Entry { handle: handle(id), client, generation, links: Default::default() });
        self.append(index);
        id
    }

    /// The connection was used: it is the freshest now. Nothing happens if it is gone.
    pub fn touch(&mut self, id: ConnectionId) {
        if self.contains(id) {
            self.unlink(id.index);
            self.append(id.index);
        }
    }

    /// Takes a connection out, if it is still there.
    pub fn remove(&mut self, id: ConnectionId) -> Option<H> {
        self.contains(id).then(|| self.take(id.index))
    }

    fn contains(&self, id: ConnectionId) -> bool {
        matches!(self.entries.get(id.index), Some(Some(entry)) if entry.generation == id.generation)
    }

    fn take(&mut self, index: usize) -> H {
        self.unlink(index);
        self.free.push(index);
        self.entries[index].take().expect("lists hold open connections only").handle
    }

    fn append(&mut self, index: usize) {
        let client = self.entry(index).client;
        for which in [ALL, OWN] {
            let list = if which == ALL { &mut self.all } else { self.clients.entry(client).or_default() };
            let before = list.freshest.replace(index);
            list.len += 1;
            if before.is_none() {
                list.idlest = Some(index);
            }
            if let Some(before) = before {
                self.entry(before).links[which].fresher = Some(index);
            }
            self.entry(index).links[which] = Links { idler: before, fresher: None };
        }
    }

    fn unlink(&mut self, index: usize) {
        let &mut Entry { client, links, .. } = self.entry(index);
        for which in [ALL, OWN] {
            let Links { idler, fresher } = links[which];
            if let Some(idler) = idler {
                self.entry(idler).links[which].fresher = fresher;
            }
            if let Some(fresher) = fresher {
                self.entry(fresher).links[which].idler = idler;
            }
            let list = if which == ALL { &mut self.all } else { self.clients.entry(client).or_default() };
            list.len -= 1;
            if idler.is_none() {
                list.idlest = fresher;
            }
            if fresher.is_none() {
                list.freshest = idler;
            }
            if which == OWN && list.len == 0 {
                self.clients.remove(&client);
            }
        }
    }

    fn entry(&mut self, index: usize) -> &mut Entry<H> {
        self.entries[index].as_mut().expect("lists hold open connections only")
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, time::Duration};

    use proptest::prelude::*;

    use super::*;

    fn limits(tcp_connections: usize, tcp_per_client: usize) -> Limits {
        Limits {
            tcp_connections,
            tcp_per_client,
            tcp_idle: Duration::from_secs(10),
            udp_payload: 1232,
            responses_per_second: 0,
        }
    }

    fn network(address: &str) -> ClientNetwork {
        ClientNetwork::of(address.parse().unwrap())
    }

    #[test]
    fn a_client_is_a_32_or_a_56() {
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
        assert_eq!(network("2001:db8:0:ff00::1"), network("2001:db8:0:ffff:1::"));
        assert_ne!(network("2001:db8:0:ff00::1"), network("2001:db8:0:fe00::1"));
    }

    #[test]
    fn above_its_share_a_client_loses_its_own_idlest() {
        let mut table = ConnectionTable::default();
        let (one, two) = (network("192.0.2.1"), network("192.0.2.2"));
        table.insert(two, |_| "other");
        let first = table.insert(one, |_| "first");
        table.insert(one, |_| "second");
        table.touch(first);
        let limits = limits(100, 2);
        assert_eq!(table.make_room(one, &limits), Some("second"));
        assert_eq!(table.make_room(one, &limits), None);
        assert_eq!(table.make_room(two, &limits), None);
    }

    #[test]
    fn a_full_server_loses_the_idlest_of_all() {
        let mut table = ConnectionTable::default();
        let ids: Vec<_> = (0..3u32).map(|n| table.insert(ClientNetwork::V4(n), |_| n)).collect();
        table.touch(ids[0]);
        assert_eq!(table.make_room(ClientNetwork::V4(9), &limits(3, 2)), Some(1));
        assert_eq!(table.make_room(ClientNetwork::V4(9), &limits(3, 2)), None);
    }

    #[test]
    fn lowered_limits_take_out_as_many_as_needed() {
        let mut table = ConnectionTable::default();
        for n in 0..5 {
            table.insert(ClientNetwork::V4(n), |_| n);
        }
        let out: Vec<_> = std::iter::from_fn(|| table.make_room(ClientNetwork::V4(9), &limits(2, 1))).collect();
        assert_eq!((out, table.len()), (vec![0, 1, 2, 3], 1));
    }

    #[test]
    fn an_id_never_means_a_later_connection() {
        let mut table = ConnectionTable::default();
        let gone = table.insert(ClientNetwork::V4(1), |_| 'a');
        assert_eq!(table.remove(gone), Some('a'));
        table.insert(ClientNetwork::V4(1), |_| 'b');
        assert_eq!(table.remove(gone), None);
        table.touch(gone);
        assert_eq!(table.take_idlest(), Some('b'));
        assert!(table.is_empty() && table.clients.is_empty());
        assert_eq!(table.take_idlest(), None);
    }

    proptest! {
        /// Against the plainest model: a queue in order of the last touch.
        #[test]
        fn it_keeps_the_order_of_the_last_touches(steps in proptest::collection::vec((0u8..4, 0u32..4, 0usize..12), 0..200)) {
            let limits = limits(8, 3);
            let mut table = ConnectionTable::default();
            let mut model: VecDeque<(ConnectionId, u32, usize)> = VecDeque::new();
            for (number, (step, client, pick)) in steps.into_iter().enumerate() {
                let picked = (pick < model.len()).then(|| model[pick]);
                match (step, picked) {
                    (0 | 1, _) => {
                        let own = || model.iter().position(|e| e.1 == client);
                        let victim = if model.iter().filter(|e| e.1 == client).count() >= 3 { own() }
                            else if model.len() >= 8 { Some(0) } else { None };
                        let expected = victim.and_then(|at| model.remove(at)).map(|e| e.2);
                        prop_assert_eq!(table.make_room(ClientNetwork::V4(client), &limits), expected);
                        model.push_back((table.insert(ClientNetwork::V4(client), |_| number), client, number));
                    }
                    (2, Some(entry)) => {
                        table.touch(entry.0);
                        model.remove(pick);
                        model.push_back(entry);
                    }
                    (3, Some(entry)) => {
                        prop_assert_eq!(table.remove(entry.0), Some(entry.2));
                        model.remove(pick);
                    }
                    _ => {}
                }
                prop_assert_eq!(table.len(), model.len());
            }
            while let Some(entry) = model.pop_front() {
                prop_assert_eq!(table.take_idlest(), Some(entry.2));
            }
            prop_assert!(table.is_empty() && table.clients.is_empty());
        }
    }
}
