//! The error of quantizers at the outputs of a real model's matrices, on the calibration text.

use pith_converter::passes::output_error;
use pith_converter::statistics::{CalibrationText, Site, Statistics, StatisticsOptions, TextOptions};
use pith_converter::{Quantizer, Rounder};
use pith_format::{Encoding, Kind, Matrix, Role, TensorId};
use pith_runtime::SessionOptions;
use pith_tests::{convert_all, shared, wren};
use std::path::Path;

/// Calibrates with `tokens` of `text` and compares on every matrix with inputs.
fn gptq_costs_no_more(source: &Path, text: &Path, tokens: usize, encodings: &[Encoding]) {
    let dense = convert_all(source, Encoding::F16);
    let model = dense.open();
    let options = TextOptions { tokens: Some(tokens), window: Some(128) };
    let text = CalibrationText::read(text, &model, options).unwrap();
    let session = SessionOptions { threads: Some(2), ..SessionOptions::default() };
    let options = StatisticsOptions { hessians: true, session, ..StatisticsOptions::default() };
    let path = dense.folder.path().join("calibration.safetensors");
    Statistics::collect(&model, &text, &options, &path, &()).unwrap();
    let calibration = Statistics::open(&path).unwrap();
    let rounder = Rounder::new(model.index(), model.bytes(), &calibration).unwrap();
    let ids: Vec<TensorId> = model
        .index()
        .entries()
        .iter()
        .map(|entry| entry.id)
        .filter(|id| id.role.kind() == Kind::Matrix)
        .collect();
    let (mut compared, mut worst) = (0, 0.0f64);
    for id in ids {
        let tied = model.config().tied_head && id.role == Role::TokenEmbedding;
        let Some(site) = (if tied { Some(Site::Head) } else { Site::of(id.role) }) else { continue };
        let gram = calibration.gram(id.layer, site).unwrap().unwrap().to_full();
        let weights = values(&model.index().matrix(model.bytes(), id).unwrap());
        for &encoding in encodings {
            let cost = |quantizer| {
                let tiles = rounder.round(id, encoding, quantizer).unwrap();
                let matrix = model.index().matrix(model.bytes(), id).unwrap();
                let (rows, cols) = (matrix.rows(), matrix.cols());
                let rounded = values(&Matrix::new(encoding, rows, cols, &tiles).unwrap());
                output_error(&weights, &rounded, cols, &gram)
            };
            let (gptq, nearest) = (cost(Quantizer::Gptq), cost(Quantizer::Nearest));
            assert!(gptq <= nearest, "{id} in {encoding}: {gptq} by gptq, {nearest} to nearest");
            (compared, worst) = (compared + 1, worst.max(gptq / nearest));
        }
    }
    println!("{}: {compared} compared, at most {worst:.3} of nearest's cost", source.display());
    assert!(compared >= encodings.len() * 7);
}

fn values(matrix: &Matrix<'_>) -> Vec<f32> {
    let mut values = vec![0.0; matrix.rows() * matrix.cols()];
    for (row, out) in values.chunks_exact_mut(matrix.cols()).enumerate() {
        matrix.decode_row(row, out);
    }
    values
}

#[test]
fn gptq_costs_no_more_than_nearest() {
    gptq_costs_no_more(&wren(), &wren().join("heldout.txt"), 2048, &[Encoding::Q4NL, Encoding::Q2]);
}

#[test]
#[ignore = "needs models/atlas of the shared data"]
fn gptq_costs_no_more_than_nearest_on_atlas() {
    let atlas = shared("models/atlas");
    let encodings = [Encoding::Q4NL, Encoding::Q3, Encoding::Q2];
    gptq_costs_no_more(&atlas, &atlas.join("calibration.txt"), 4096, &encodings);
}
