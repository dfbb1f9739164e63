//! An open-addressing hash table of ids whose keys are stored elsewhere.

/// Maps hashes to ids; the caller compares keys, since only it holds them.
pub(crate) struct IdTable {
    /// id + 1, or 0 for an empty slot. The length is a power of two; at most half the slots are
    /// used.
    slots: Vec<u32>,
    mask: usize,
}

impl IdTable {
    /// A table with room for `count` ids.
    pub fn with_room(count: usize) -> Self {
        let slot_count = (count.max(4) * 2).next_power_of_two();
        Self { slots: vec![0; slot_count], mask: slot_count - 1 }
    }

    /// Inserts `id` unless an equal key is present; the first one stays.
    pub fn insert(&mut self, hash: u64, id: u32, same: impl Fn(u32) -> bool) {
        let mut slot = hash as usize & self.mask;
        while self.slots[slot] != 0 {
            if same(self.slots[slot] - 1) {
                return;
            }
            slot = (slot + 1) & self.mask;
        }
        self.slots[slot] = id + 1;
    }

    /// The id with an equal key.
    pub fn find(&self, hash: u64, same: impl Fn(u32) -> bool) -> Option<u32> {
        let mut slot = hash as usize & self.mask;
        while self.slots[slot] != 0 {
            let id = self.slots[slot] - 1;
            if same(id) {
                return Some(id);
            }
            slot = (slot + 1) & self.mask;
        }
        None
    }
}
