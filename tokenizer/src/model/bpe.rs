//! Byte-pair encoding by merge ranks, after the rules of Hugging Face's `BPE`.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{byte_fallback_table, byte_ids};
use crate::settings::ModelKind;
use crate::table::IdTable;
use crate::vocab::{Kind, Vocab};

/// Index that ends the chain.
const END: u32 = u32::MAX;

pub(crate) struct Bpe {
    byte_level: bool,
    ignore_merges: bool,
    fuse_unk: bool,
    unk: Option<u32>,
    /// Initial symbol of each byte, in a byte-level model.
    initial: Box<[Option<u32>; 256]>,
    /// Symbol of each byte of a character that has no token.
    fallback: Option<Box<[Option<u32>; 256]>>,
    merges: Merges,
}

/// Pairs of ids, each with its rank and its result.
struct Merges {
    /// By rank: left, right, result.
    list: Vec<[u32; 3]>,
    ranks: IdTable,
    hasher: ahash::RandomState,
}

impl Merges {
    fn new(list: Vec<[u32; 3]>) -> Self {
        let hasher = ahash::RandomState::new();
        let mut ranks = IdTable::with_room(list.len());
        for (rank, [left, right, _]) in (0..).zip(&list) {
            ranks.insert(hasher.hash_one((left, right)), rank, |other| {
                list[other as usize][..2] == [*left, *right]
            });
        }
        Self { list, ranks, hasher }
    }

    /// Rank and result of a pair.
    fn find(&self, left: u32, right: u32) -> Option<(u32, u32)> {
        let hash = self.hasher.hash_one((&left, &right));
        let rank = self.ranks.find(hash, |rank| self.list[rank as usize][..2] == [left, right])?;
        Some((rank, self.list[rank as usize][2]))
    }
}

/// One symbol of the piece, in a doubly linked chain.
#[derive(Clone, Copy)]
struct Symbol {
    id: u32,
    prev: u32,
    next: u32,
    live: bool,
}

/// Lowest rank first, then leftmost. Entries: rank, position, result.
type Queue = BinaryHeap<Reverse<(u32, u32, u32)>>;

#[derive(Default)]
pub(crate) struct Scratch {
    symbols: Vec<Symbol>,
    queue: Queue,
}

impl Bpe {
    pub fn new(kind: &ModelKind, vocab: &Vocab, merges: Vec<[u32; 3]>) -> Self {
        let &ModelKind::Bpe { byte_level, ignore_merges, byte_fallback, fuse_unk, unk } = kind else {
            unreachable!("called for this kind alone");
        };
        Self {
            byte_level,
            ignore_merges,
            fuse_unk,
            unk,
            initial: vocab.single_bytes(Kind::Text),
            fallback: byte_fallback.then(|| byte_fallback_table(vocab)),
            merges: Merges::new(merges),
        }
    }

    pub fn merges(&self) -> &[[u32; 3]] {
        &self.merges.list
    }

    pub fn encode(&self, vocab: &Vocab, piece: &str, scratch: &mut Scratch, ids: &mut Vec<u32>) {
        if self.ignore_merges
            && let Some(id) = vocab.find(piece.as_bytes())
        {
            ids.push(id);
            return;
        }
        scratch.symbols.clear();
        if self.byte_level {
            self.begin(piece.as_bytes().chunks(1), |byte| self.initial[byte[0] as usize], scratch);
        } else {
            let characters = piece.char_indices();
            let characters = characters.map(|(start, c)| &piece.as_bytes()[start..start + c.len_utf8()]);
            self.begin(characters, |text| self.find_character(vocab, text), scratch);
        }
        self.merge(scratch);
        ids.extend(scratch.symbols.iter().filter(|symbol| symbol.live).map(|symbol| symbol.id));
    }

    fn find_character(&self, vocab: &Vocab, text: &[u8]) -> Option<u32> {
        match *text {
            [byte] => self.initial[byte as usize],
            _ => vocab.find(text),
        }
    }

    /// Fills the chain with the ids of single units. A unit without a token falls back to its
    /// bytes, then to the unknown token, then to nothing.
    fn begin<'a>(
        &self,
        units: impl Iterator<Item = &'a [u8]>,
        find: impl Fn(&[u8]) -> Option<u32>,
        scratch: &mut Scratch,
    ) {
        let symbols = &mut scratch.symbols;
        let mut after_unknown = false;
        for unit in units {
            if let Some(id) = find(unit) {
                push(symbols, id);
            } else if let Some(bytes) = self.fallback.as_ref().and_then(|bytes| byte_ids(bytes, unit)) {
                bytes.for_each(|id| push(symbols, id));
            } else if let Some(unk) = self.unk {
                if !(after_unknown && self.fuse_unk) {
                    push(symbols, unk);
                }
                after_unknown = true;
                continue;
            } else {
                continue;
            }
            after_unknown = false;
        }
        if let Some(last) = symbols.last_mut() {
            last.next = END;
        }
    }

    fn merge(&self, scratch: &mut Scratch) {
        let Scratch { symbols, queue } = scratch;
        queue.clear();
        for (position, pair) in (0..).zip(symbols.windows(2)) {
            self.enqueue(queue, position, pair[0].id, pair[1].id);
        }
        while let Some(Reverse((_, position, result))) = queue.pop() {
            let left = symbols[position as usize];
            if !left.live || left.next == END {
                continue;
            }
            let right = symbols[left.next as usize];
            // An entry is stale when its pair no longer exists.
            if self.merges.find(left.id, right.id).is_none_or(|(_, id)| id != result) {
                continue;
            }
            symbols[left.next as usize].live = false;
            symbols[position as usize] = Symbol { id: result, next: right.next, ..left };
            if right.next != END {
                symbols[right.next as usize].prev = position;
                self.enqueue(queue, position, result, symbols[right.next as usize].id);
            }
            if left.prev != END {
                self.enqueue(queue, left.prev, symbols[left.prev as usize].id, result);
            }
        }
    }

    fn enqueue(&self, queue: &mut Queue, position: u32, left: u32, right: u32) {
        if let Some((rank, result)) = self.merges.find(left, right) {
            queue.push(Reverse((rank, position, result)));
        }
    }
}

fn push(symbols: &mut Vec<Symbol>, id: u32) {
    let index = symbols.len() as u32;
    let prev = index.checked_sub(1).unwrap_or(END);
    symbols.push(Symbol { id, prev, next: index + 1, live: true });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(kind: ModelKind, tokens: &[(Kind, &str)], merges: &[[u32; 3]], piece: &str) -> Vec<u32> {
        let mut vocab = Vocab::default();
        tokens.iter().for_each(|(kind, text)| vocab.push(*kind, text.as_bytes()));
        let mut ids = Vec::new();
        Bpe::new(&kind, &vocab, merges.to_vec()).encode(&vocab, piece, &mut Scratch::default(), &mut ids);
        ids
    }

    const TOKENS: [(Kind, &str); 7] = [
        (Kind::Literal, "<unk>"),
        (Kind::Text, "a"),
        (Kind::Text, "b"),
        (Kind::Text, "c"),
        (Kind::Text, "ab"),
        (Kind::Text, "bc"),
        (Kind::Text, "abc"),
    ];

    fn kind(ignore_merges: bool, fuse_unk: bool) -> ModelKind {
        ModelKind::Bpe { byte_level: false, ignore_merges, byte_fallback: true, fuse_unk, unk: Some(0) }
    }

    #[test]
    fn lower_rank_merges_first_and_only_listed_pairs_merge() {
        let merges = [[2, 3, 5], [1, 2, 4], [4, 3, 6]];
        assert_eq!(encode(kind(false, true), &TOKENS, &merges, "abc"), [1, 5]);
        assert_eq!(encode(kind(false, true), &TOKENS, &merges, "abab"), [4, 4]);
        assert_eq!(encode(kind(true, true), &TOKENS, &merges, "abc"), [6]);
    }

    #[test]
    fn equal_pairs_merge_from_the_left() {
        let tokens = [(Kind::Text, "a"), (Kind::Text, "aa")];
        assert_eq!(encode(kind(false, true), &tokens, &[[0, 0, 1]], "aaa"), [1, 0]);
    }

    #[test]
    fn unknown_characters_fuse_only_if_asked() {
        assert_eq!(encode(kind(false, true), &TOKENS, &[], "xya"), [0, 1]);
        assert_eq!(encode(kind(false, false), &TOKENS, &[], "xya"), [0, 0, 1]);
    }

    #[test]
    fn characters_without_a_token_fall_back_to_their_bytes() {
        let tokens = [(Kind::Byte, "\u{1}"), (Kind::Text, "a"), (Kind::Byte, "x")];
        assert_eq!(encode(kind(false, true), &tokens, &[], "ax"), [1, 2]);
    }
}
