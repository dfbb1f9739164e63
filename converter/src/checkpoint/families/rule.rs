//! A family's table: the source tensor of each role, and the change between the two.

use pith_format::{ModelConfig, Role, TensorId};

/// One line of a family's table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    pub(crate) role: Role,
    /// The source's name; `{}` stands for the layer.
    pub(crate) name: &'static str,
    pub(crate) presence: Presence,
    pub(crate) rows: Rows,
    /// The source is stored as inputs × outputs.
    pub(crate) transposed: bool,
    /// Added to every value.
    pub(crate) offset: f32,
}

/// Whether a checkpoint must have the tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Always.
    Required,
    /// Optional; the runtime checks whether the file holds it.
    Optional,
    /// Required if this flag of `config.json` is set, or is missing and the second value is true;
    /// otherwise forbidden.
    Flag(&'static str, bool),
}

/// The rows of the source that make up the role, in the order of outputs in the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rows {
    /// All.
    All,
    /// A part of stacked queries, keys and values: 0, 1 or 2.
    Stacked(usize),
    /// A part of a stack within each head: 0, 1 or 2.
    StackedPerHead(usize),
    /// A half of stacked gate and up: 0 or 1.
    Half(usize),
    /// Heads with rotated dimensions in pairs, `0, h, 1, h + 1, …`; they become halves,
    /// `0, 1, …, h, h + 1, …`.
    Paired,
}

/// The source row of each row of a role: [`Rows`] with the numbers of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowMap {
    From(usize),
    PerHead { head_dim: usize, part: usize },
    Paired { head_dim: usize, rotated: usize },
}

pub(crate) const fn rule(role: Role, name: &'static str) -> Rule {
    Rule { role, name, presence: Presence::Required, rows: Rows::All, transposed: false, offset: 0.0 }
}

impl Rule {
    pub(crate) const fn optional(mut self) -> Self {
        self.presence = Presence::Optional;
        self
    }

    pub(crate) const fn flag(mut self, key: &'static str, default: bool) -> Self {
        self.presence = Presence::Flag(key, default);
        self
    }

    pub(crate) const fn rows(mut self, rows: Rows) -> Self {
        self.rows = rows;
        self
    }

    pub(crate) const fn transposed(mut self) -> Self {
        self.transposed = true;
        self
    }

    /// Norms of the Gemma models multiply by `1 + w`.
    pub(crate) const fn plus_one(mut self) -> Self {
        self.offset = 1.0;
        self
    }

    /// The source tensor of one layer.
    pub(crate) fn source_name(&self, layer: Option<usize>) -> String {
        match layer {
            Some(layer) => self.name.replacen("{}", &layer.to_string(), 1),
            None => self.name.to_string(),
        }
    }

    /// The number of rows of the source, and those that make up the role.
    pub(crate) fn row_map(&self, model: &ModelConfig, id: TensorId) -> (usize, RowMap) {
        let layer = &model.layers[id.layer.unwrap_or(0)];
        let head_dim = layer.attention().map_or(1, |attention| attention.head_dim);
        let rows = |role: Role| TensorId { role, ..id }.shape(model).map_or(0, |(rows, _)| rows);
        let (query, key) = (rows(Role::Query), rows(Role::Key));
        match self.rows {
            Rows::All => (rows(self.role), RowMap::From(0)),
            Rows::Stacked(part) => (query + 2 * key, RowMap::From([0, query, query + key][part])),
            Rows::StackedPerHead(part) => (3 * query, RowMap::PerHead { head_dim, part }),
            Rows::Half(part) => (2 * rows(self.role), RowMap::From(part * rows(self.role))),
            Rows::Paired => {
                // A layer without rope has the same order as the layers with it.
                let table = layer.attention().and_then(|attention| attention.rope).unwrap_or(0);
                let rotated = model.rope.get(table).map_or(head_dim, |table| table.dim);
                (rows(self.role), RowMap::Paired { head_dim, rotated })
            }
        }
    }
}

impl RowMap {
    /// The source row of `row`.
    pub(crate) fn source(self, row: usize) -> usize {
        match self {
            RowMap::From(start) => start + row,
            RowMap::PerHead { head_dim, part } => {
                (row / head_dim) * 3 * head_dim + part * head_dim + row % head_dim
            }
            RowMap::Paired { head_dim, rotated } => {
                let (head, within) = (row / head_dim * head_dim, row % head_dim);
                let half = rotated / 2;
                head + if within >= rotated { within } else { within % half * 2 + within / half }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(map: RowMap, count: usize) -> Vec<usize> {
        (0..count).map(|row| map.source(row)).collect()
    }

    #[test]
    fn parts_of_each_head_are_gathered() {
        let map = RowMap::PerHead { head_dim: 2, part: 1 };
        assert_eq!(rows(map, 4), [2, 3, 8, 9]);
    }

    #[test]
    fn pairs_become_halves() {
        let map = RowMap::Paired { head_dim: 6, rotated: 6 };
        assert_eq!(rows(map, 12), [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
        let partial = RowMap::Paired { head_dim: 6, rotated: 4 };
        assert_eq!(rows(partial, 6), [0, 2, 1, 3, 4, 5]);
    }

    #[test]
    fn names_carry_the_layer() {
        assert_eq!(rule(Role::Query, "blk.{}.attn_q.weight").source_name(Some(12)), "blk.12.attn_q.weight");
        assert_eq!(rule(Role::Head, "output.weight").source_name(None), "output.weight");
    }
}
