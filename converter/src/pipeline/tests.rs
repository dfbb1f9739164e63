//! Passes that no recipe has yet, through the whole pipeline: structured and unstructured pruning.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use pith_format::{Encoding, FeedForward, Index, Kind, Role, TensorId};

use super::{ConvertOptions, convert_with};
use crate::checkpoint::Checkpoint;
use crate::error::ConvertError;
use crate::passes::{Extent, Group, Outline, Pass, PassError, PassReport, output_error};
use crate::recipe::{Quantizer, Recipe};
use crate::statistics::{CalibrationText, Model, Site, Statistics, StatisticsOptions, TextOptions};

/// Zeros the smaller half of each row of the layers' matrices.
struct ZeroHalf;

impl Pass for ZeroHalf {
    fn name(&self) -> &'static str {
        "zero-half"
    }

    fn apply(&self, group: &mut Group, _: Option<&Statistics>) -> Result<PassReport, PassError> {
        let mut report = PassReport::default();
        for member in group.members.iter_mut().filter(|member| is_pruned(member.id)) {
            let mask: Vec<bool> = member.weights.chunks_exact(member.cols).flat_map(smaller_half).collect();
            report.zeros += mask.iter().filter(|masked| **masked).count() as u64;
            report.members += 1;
            member.mask = Some(mask);
        }
        Ok(report)
    }
}

fn is_pruned(id: TensorId) -> bool {
    id.layer.is_some() && id.role.kind() == Kind::Matrix
}

fn smaller_half(row: &[f32]) -> Vec<bool> {
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|&a, &b| row[a].abs().total_cmp(&row[b].abs()));
    let mut mask = vec![false; row.len()];
    order[..row.len() / 2].iter().for_each(|&col| mask[col] = true);
    mask
}

/// Keeps half of each layer's hidden units: those with the largest gate and up rows.
#[derive(Default)]
struct NarrowFeedForward {
    kept: Mutex<HashMap<usize, Vec<usize>>>,
}

impl Pass for NarrowFeedForward {
    fn name(&self) -> &'static str {
        "narrow"
    }

    fn reshape(&mut self, _: &Checkpoint, outline: &mut Outline) -> Result<(), PassError> {
        for layer in &mut outline.model.layers {
            let FeedForward::Gated(dense) = &mut layer.feed_forward else { panic!("{layer:?} is not gated") };
            dense.len /= 2;
        }
        Ok(())
    }

    fn extent(&self, id: TensorId) -> Extent {
        match id.role {
            Role::Gate | Role::Up => Extent::Group,
            Role::Down => Extent::Matrix,
            _ => Extent::Rows,
        }
    }

    fn apply(&self, group: &mut Group, _: Option<&Statistics>) -> Result<PassReport, PassError> {
        let Some((Some(layer), site)) = group.input else { return Ok(PassReport::default()) };
        let mut kept = self.kept.lock().unwrap();
        match site {
            Site::Ffn => {
                assert_eq!(group.members.len(), 2, "gate and up come together");
                let norms = units(group.members.iter().map(|member| (&member.weights[..], member.cols)));
                let kept = kept.entry(layer).or_insert(norms);
                for member in &mut group.members {
                    let cols = member.cols;
                    let rows = kept.iter().flat_map(|&row| &member.weights[row * cols..][..cols]);
                    member.weights = rows.copied().collect();
                }
            }
            Site::Down => {
                let (kept, member) = (&kept[&layer], &mut group.members[0]);
                let rows = member.weights.chunks_exact(member.cols);
                member.weights = rows.flat_map(|row| kept.iter().map(|&col| row[col])).collect();
                member.cols = kept.len();
            }
            _ => return Ok(PassReport::default()),
        }
        Ok(PassReport { members: group.members.len(), ..PassReport::default() })
    }
}

/// The half of the units with the largest rows, in their order.
fn units<'a>(matrices: impl Iterator<Item = (&'a [f32], usize)>) -> Vec<usize> {
    let mut norms: Vec<f32> = Vec::new();
    for (weights, cols) in matrices {
        norms.resize(weights.len() / cols, 0.0);
        let rows = norms.iter_mut().zip(weights.chunks_exact(cols));
        rows.for_each(|(norm, row)| *norm += row.iter().map(|weight| weight * weight).sum::<f32>());
    }
    let mut order: Vec<usize> = (0..norms.len()).collect();
    order.sort_by(|&a, &b| norms[b].total_cmp(&norms[a]));
    order.truncate(norms.len() / 2);
    order.sort();
    order
}

/// A whole file in memory.
struct File {
    bytes: Vec<u8>,
    index: Index,
}

impl File {
    /// Converts with `extra` passes.
    fn new(source: &Path, options: &ConvertOptions, extra: Vec<Box<dyn Pass>>) -> Result<Self, ConvertError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.pith");
        convert_with(source, &path, options, extra, &())?;
        let bytes = std::fs::read(&path).unwrap();
        let index = Index::parse(&bytes).unwrap();
        Ok(Self { bytes, index })
    }

    /// The shape and the values of a matrix.
    fn values(&self, id: TensorId) -> (usize, usize, Vec<f32>) {
        let matrix = self.index.matrix(&self.bytes, id).unwrap();
        let mut values = vec![0.0; matrix.rows() * matrix.cols()];
        for (row, values) in values.chunks_exact_mut(matrix.cols()).enumerate() {
            matrix.decode_row(row, values);
        }
        (matrix.rows(), matrix.cols(), values)
    }

    fn pruned(&self) -> Vec<TensorId> {
        self.index.entries().iter().map(|entry| entry.id).filter(|&id| is_pruned(id)).collect()
    }
}

fn options(encoding: Encoding) -> ConvertOptions {
    ConvertOptions { recipe: Recipe::new(encoding), ..ConvertOptions::default() }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn a_mask_is_kept_through_gptq() {
    let (wren, folder) = (repository().join("models/wren"), tempfile::tempdir().unwrap());
    let (dense, calibration) = (folder.path().join("dense.pith"), folder.path().join("statistics"));
    convert_with(&wren, &dense, &options(Encoding::F16), Vec::new(), &()).unwrap();
    let model = Arc::new(Model::open(&dense).unwrap());
    let few = TextOptions { tokens: Some(512), window: Some(64) };
    let text = CalibrationText::read(&wren.join("heldout.txt"), &model, few).unwrap();
    let collecting = StatisticsOptions { hessians: true, ..StatisticsOptions::default() };
    Statistics::collect(&model, &text, &collecting, &calibration, &()).unwrap();
    let statistics = Statistics::open(&calibration).unwrap();

    let source = File::new(&wren, &options(Encoding::F32), Vec::new()).unwrap();
    let rounded = |quantizer| {
        let recipe = Recipe { quantizer, ..Recipe::new(Encoding::Q4) };
        let options =
            ConvertOptions { recipe, calibration: Some(calibration.clone()), ..options(Encoding::Q4) };
        File::new(&wren, &options, vec![Box::new(ZeroHalf)]).unwrap()
    };
    let (gptq, nearest) = (rounded(Quantizer::Gptq), rounded(Quantizer::Nearest));
    let (mut zeros, mut costs) = (0, [0.0; 2]);
    for id in gptq.pruned() {
        let (_, cols, weights) = source.values(id);
        let mask: Vec<bool> = weights.chunks_exact(cols).flat_map(smaller_half).collect();
        zeros += mask.iter().filter(|masked| **masked).count() as u64;
        let gram = statistics.gram(id.layer, Site::of(id.role).unwrap()).unwrap().unwrap().to_full();
        for (file, cost) in [&gptq, &nearest].into_iter().zip(&mut costs) {
            let values = file.values(id).2;
            assert!(mask.iter().zip(&values).all(|(&masked, &value)| !masked || value == 0.0), "{id}");
            *cost += output_error(&weights, &values, cols, &gram);
        }
    }
    // The remaining weights cancel the error of the removed ones.
    assert!(costs[0] < 0.8 * costs[1], "{} by gptq, {} to nearest", costs[0], costs[1]);
    let passes = &gptq.index.metadata().provenance.passes;
    assert_eq!((passes[0].name.as_str(), passes[0].zeros), ("zero-half", zeros));
    assert_eq!(passes[1].name, "gptq");
}

#[test]
fn a_mask_needs_an_encoding_with_a_zero() {
    let source = repository().join("tests/golden/families/llama3");
    let error = File::new(&source, &options(Encoding::Q4NL), vec![Box::new(ZeroHalf)]).err().unwrap();
    assert!(matches!(error, ConvertError::Pass(PassError::NoZero { .. })), "{error}");
    assert!(error.to_string().contains("q4-nl has no zero"), "{error}");
}

#[test]
fn a_pass_may_change_the_dimensions_of_a_layer() {
    let source = repository().join("tests/golden/families/llama3");
    let dense = File::new(&source, &options(Encoding::F32), Vec::new()).unwrap();
    let narrow =
        File::new(&source, &options(Encoding::F32), vec![Box::<NarrowFeedForward>::default()]).unwrap();
    narrow.index.verify(&narrow.bytes, |_| {}).unwrap();
    for layer in 0..dense.index.metadata().model.layers.len() {
        let id = |role| TensorId::layer(role, layer);
        let [gate, up, down] = [Role::Gate, Role::Up, Role::Down].map(|role| dense.values(id(role)));
        let kept = units([&gate, &up].into_iter().map(|(_, cols, values)| (&values[..], *cols)));
        let rows = |(_, cols, values): &(usize, usize, Vec<f32>)| -> Vec<f32> {
            kept.iter().flat_map(|&row| &values[row * cols..][..*cols]).copied().collect()
        };
        assert_eq!(narrow.values(id(Role::Gate)), (gate.0 / 2, gate.1, rows(&gate)));
        assert_eq!(narrow.values(id(Role::Up)), (up.0 / 2, up.1, rows(&up)));
        let cols = down.2.chunks_exact(down.1).flat_map(|row| kept.iter().map(|&col| row[col]));
        assert_eq!(narrow.values(id(Role::Down)), (down.0, down.1 / 2, cols.collect()));
    }
    assert_eq!(narrow.index.metadata().provenance.passes[0].name, "narrow");
}
