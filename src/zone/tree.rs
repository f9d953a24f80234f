//! A tree of labels in one hash table: each step down is one look-up by (parent, label), so the cost of finding a name grows
//! with the labels that exist and not with those that a client invents.

use std::hash::{BuildHasher, Hash, Hasher};

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::wire::{Name, QName};

/// A node of a [`LabelTree`]; the tree's top is [`NodeId::TOP`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

impl NodeId {
    /// The node that the tree begins at.
    pub const TOP: NodeId = NodeId(0);

    /// As an index into a list of payloads kept beside the tree.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// The label of wildcards (RFC 4592 §2.1.1).
const WILDCARD: &[u8] = b"*";

/// Names as a tree, numbered in the order of insertion.
pub struct LabelTree {
    edges: HashTable<Edge>,
    labels: Vec<u8>,
    /// By node: it has a child other than `*`. Most names that are asked for lie right below a node without: what a client
    /// invents there costs no look-up.
    has_named_child: Vec<bool>,
    hasher: DefaultHashBuilder, // keyed anew for each table, so that nobody can prepare colliding labels
}

struct Edge {
    parent: NodeId,
    child: NodeId,
    label_at: u32,
    label_len: u8,
}

impl Default for LabelTree {
    fn default() -> Self {
        let (edges, labels, hasher) = (HashTable::new(), Vec::new(), DefaultHashBuilder::default());
        LabelTree { edges, labels, has_named_child: vec![false], hasher }
    }
}

impl LabelTree {
    /// Number of nodes, the top included.
    pub fn node_count(&self) -> usize {
        self.has_named_child.len()
    }

    /// The child of `parent` by this (lower-case) label.
    #[inline]
    pub fn child(&self, parent: NodeId, label: &[u8]) -> Option<NodeId> {
        if !self.has_named_child[parent.index()] && label != WILDCARD {
            return None;
        }
        let hash = hash_edge(&self.hasher, parent, label);
        self.edges.find(hash, |edge| edge.parent == parent && edge.label(&self.labels) == label).map(|edge| edge.child)
    }

    /// The node of `name`, whose last `skip` labels are the tree's top; made with its ancestors where it is missing. `name`
    /// has at least `skip` labels.
    pub fn insert(&mut self, name: &Name, skip: usize) -> NodeId {
        let mut node = NodeId::TOP;
        for label in name.labels().rev().skip(skip) {
            node = self.child(node, label).unwrap_or_else(|| self.add(node, label));
        }
        node
    }

    /// The node of `name`, whose last `skip` labels are the tree's top.
    pub fn get(&self, name: &QName, skip: usize) -> Option<NodeId> {
        (skip..name.label_count()).try_fold(NodeId::TOP, |node, n| self.child(node, name.label_from_right(n)))
    }

    fn add(&mut self, parent: NodeId, label: &[u8]) -> NodeId {
        let child = NodeId(self.has_named_child.len() as u32);
        self.has_named_child.push(false);
        self.has_named_child[parent.index()] |= label != WILDCARD;
        let label_at = self.labels.len() as u32;
        self.labels.extend_from_slice(label);
        let edge = Edge { parent, child, label_at, label_len: label.len() as u8 };
        let (labels, hasher) = (&self.labels, &self.hasher);
        let hash = hash_edge(hasher, parent, label);
        self.edges.insert_unique(hash, edge, |edge| hash_edge(hasher, edge.parent, edge.label(labels)));
        child
    }
}

impl Edge {
    fn label<'l>(&self, labels: &'l [u8]) -> &'l [u8] {
        &labels[self.label_at as usize..][..usize::from(self.label_len)]
    }
}

fn hash_edge(hasher: &DefaultHashBuilder, parent: NodeId, label: &[u8]) -> u64 {
    let mut state = hasher.build_hasher();
    parent.hash(&mut state);
    state.write(label);
    state.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_below_the_top_and_nothing_else() {
        let mut tree = LabelTree::default();
        let name: Name = "a.b.example.com".parse().unwrap();
        let node = tree.insert(&name, 2);
        assert_eq!(tree.insert(&name, 2), node);
        assert_eq!(tree.node_count(), 3);
        let get = |text: &str| tree.get(&QName::from_name(&text.parse().unwrap()), 2);
        assert_eq!(get("A.b.example.com"), Some(node));
        assert_eq!(get("example.com"), Some(NodeId::TOP));
        assert_eq!(get("b.example.com"), tree.child(NodeId::TOP, b"b"));
        assert_eq!(get("a.example.com"), None);
    }
}
