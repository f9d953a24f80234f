//! The search tree of an `.mmdb` file: the networks that have a record, in the order of their addresses. Knows nothing of what
//! the records say.
//!
//! It is walked piece by piece of the address space that is not special-purpose. Writers lay a tree out in the order of this walk, so
//! that memory is read from one end to the other; what is left is to do little at each of some millions of nodes.

use std::slice;

use super::{ranges::Family, special};

/// The tree, its layout unchecked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tree<'d> {
    /// The nodes, one after another, and what follows them.
    bytes: &'d [u8],
    node_count: u32,
    node_bytes: usize,
    /// Its root is that of the IPv4 addresses. Else that is the branch ::/96.
    is_v4: bool,
}

/// Networks in a row that have the same record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Located {
    pub(super) first: u128,
    pub(super) last: u128,
    /// Of the record in the data section.
    pub(super) offset: u32,
}

/// Zero bytes between the tree and the data section, counted as part of the data in the tree's numbers.
pub(super) const SEPARATOR_BYTES: u32 = 16;

impl<'d> Tree<'d> {
    /// At the beginning of `bytes`; a record is one of a node's two.
    pub(super) fn new(bytes: &'d [u8], node_count: u32, record_bits: u16, is_v4: bool) -> Self {
        Tree { bytes, node_count, node_bytes: usize::from(record_bits) / 4, is_v4 }
    }

    /// What follows the tree and the separator.
    pub(super) fn data(&self) -> &'d [u8] {
        let start = self.node_count as usize * self.node_bytes + SEPARATOR_BYTES as usize;
        self.bytes.get(start..).unwrap_or_default()
    }

    /// The node or leaf of a piece. A leaf may stand for more than the piece.
    fn entry(&self, first: u128, length: u32) -> Result<u32, &'static str> {
        // IPv4 is the branch ::/96 of an IPv6 tree, and the low 32 bits here: the same 128 bits lead to it.
        let skipped = if self.is_v4 { 96 } else { 0 };
        let mut node = 0;
        for depth in skipped..length {
            if node >= self.node_count {
                break;
            }
            let (left, right) = self.children(node)?;
            node = if first >> (127 - depth) & 1 == 0 { left } else { right };
        }
        Ok(node)
    }

    #[inline(always)] // a few million calls at a start
    fn children(&self, node: u32) -> Result<(u32, u32), &'static str> {
        let start = node as usize * self.node_bytes;
        // Eight bytes, whatever the size of a node: data follow the tree.
        let bytes =
            self.bytes.get(start..).and_then(|rest| rest.first_chunk()).ok_or("its search tree is cut short")?;
        let bits = u64::from_be_bytes(*bytes);
        Ok(match self.node_bytes {
            7 => ((bits >> 12 & 0xf00_0000 | bits >> 40) as u32, (bits >> 8) as u32 & 0x0fff_ffff),
            6 => ((bits >> 40) as u32, (bits >> 16) as u32 & 0x00ff_ffff),
            8 => ((bits >> 32) as u32, bits as u32),
            _ => return Err("a record size other than 24, 28 and 32 bits"),
        })
    }
}

/// A node or leaf that stands for all addresses with a prefix of this length.
#[derive(Debug, Clone, Copy, Default)]
struct Branch {
    node: u32,
    length: u32,
}

/// The host bits of an address by the length of its prefix.
const HOSTS: [u128; 129] = {
    let mut hosts = [0; 129];
    let mut length = 0;
    while length < 128 {
        hosts[length] = u128::MAX >> length;
        length += 1;
    }
    hosts
};

/// The networks that have a record, in the address space that is not special-purpose.
pub(super) struct Networks<'d> {
    tree: Tree<'d>,
    pieces: slice::Iter<'static, special::Block>,
    /// What is left of the current piece: the right branches of nodes that were passed, and how many.
    waiting: [Branch; 128],
    count: usize,
    /// The first address of what is left.
    first: u128,
    /// A sound tree is entered once at each node. One that shares branches among a few prefixes is entered a few times as
    /// often; one that is knotted up to 2^128 times.
    visits_left: u64,
}

impl<'d> Networks<'d> {
    pub(super) fn new(tree: Tree<'d>, family: Family) -> Self {
        let skip = family == Family::V6 && tree.is_v4;
        Networks {
            tree,
            pieces: if skip { &[] } else { family.pieces() }.iter(),
            waiting: [Branch::default(); 128],
            count: 0,
            first: 0,
            visits_left: 8 * u64::from(tree.node_count),
        }
    }

    /// Replaces the content of `batch` by the next `limit` networks; at the end of the tree by fewer.
    pub(super) fn fetch(&mut self, batch: &mut Vec<Located>, limit: usize) -> Result<(), &'static str> {
        batch.clear();
        while batch.len() < limit {
            if self.count == 0 {
                let Some(&(first, last)) = self.pieces.next() else { break };
                let length = (last - first).leading_zeros();
                self.waiting[0] = Branch { node: self.tree.entry(first, length)?, length };
                (self.count, self.first) = (1, first);
            }
            self.walk(batch, limit)?;
        }
        Ok(())
    }

    /// Walks what is left of the piece until `batch` has `limit` networks.
    fn walk(&mut self, batch: &mut Vec<Located>, limit: usize) -> Result<(), &'static str> {
        let tree = self.tree;
        while batch.len() < limit && self.count > 0 {
            self.count -= 1;
            let Branch { mut node, mut length } = self.waiting[self.count];
            // Down the left branches; the right ones wait.
            while node < tree.node_count {
                if length == 128 || self.visits_left == 0 {
                    return Err("its search tree runs in circles");
                }
                self.visits_left -= 1;
                let (left, right) = tree.children(node)?;
                length += 1;
                self.waiting[self.count] = Branch { node: right, length };
                self.count += 1;
                node = left;
            }
            let (first, last) = (self.first, self.first + HOSTS[length as usize]);
            self.first = last.wrapping_add(1); // only after the last of all is there none
            if node == tree.node_count {
                continue;
            }
            let offset = (node - tree.node_count).checked_sub(SEPARATOR_BYTES);
            let offset = offset.ok_or("its search tree points between tree and data")?;
            match batch.last_mut() {
                Some(before) if before.offset == offset && before.last + 1 == first => before.last = last,
                _ => batch.push(Located { first, last, offset }),
            }
        }
        Ok(())
    }
}
