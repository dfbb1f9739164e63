//! `pith inspect`

use crate::checkpoint::is_checkpoint;
use crate::options::session::{CacheArgs, ContextArgs, MemoryArgs, open_model};
use crate::output::{self, Table, TableFormat};
use crate::placement;
use clap::{Args, ValueHint};
use pith_boards::{CacheKind, Machine};
use pith_format::{Entry, Kind, Layer, ModelConfig, Sampling};
use pith_runtime::{ModelFile, Placement, SessionOptions};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// `pith inspect`
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// .pith file, Hugging Face folder or .gguf file
    #[arg(required_unless_present = "cpu", value_hint = ValueHint::AnyPath)]
    pub model: Option<PathBuf>,
    /// Show this machine and the kernels it can run
    #[arg(long, conflicts_with_all = ["model", "verify"])]
    pub cpu: bool,
    /// Read every byte and compare all checksums
    #[arg(long)]
    pub verify: bool,
    /// Show which weights fit in memory, which are read from disk for every token, and the expected
    /// speed
    #[arg(long, conflicts_with_all = ["cpu", "verify"])]
    pub plan: bool,
    #[command(flatten)]
    pub session: PlanArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// The session that the plan is for.
#[derive(Debug, Args)]
#[command(mut_arg("memory", |arg| arg.requires("plan")))]
#[command(mut_arg("context", |arg| arg.requires("plan")))]
#[command(mut_arg("kv", |arg| arg.requires("plan")))]
pub struct PlanArgs {
    #[command(flatten)]
    pub memory: MemoryArgs,
    #[command(flatten)]
    pub context: ContextArgs,
    #[command(flatten)]
    pub cache: CacheArgs,
}

/// Shows a file, a checkpoint or this machine.
pub fn inspect(args: InspectArgs) -> anyhow::Result<()> {
    let (text, json) = match &args.model {
        None => inspect_cpu()?,
        Some(path) if is_checkpoint(path) => inspect_checkpoint(path)?,
        Some(path) if args.plan => inspect_plan(path, &args.session)?,
        Some(path) => inspect_file(path, args.verify)?,
    };
    output::print(&if args.json { format!("{json:#}\n") } else { text })?;
    Ok(())
}

fn inspect_file(path: &Path, verify: bool) -> anyhow::Result<(String, Value)> {
    let file = ModelFile::open(path)?;
    let index = file.index();
    let streamed_bytes = index.total_reads().streamed;
    let mut verified = 0;
    if verify {
        let place = |error| anyhow::Error::new(error).context(format!("{} is damaged", path.display()));
        index.verify(file.bytes(), |part| verified += part.bytes).map_err(place)?;
    }
    let metadata = index.metadata();
    let mut table = Table::new(&["tensor", "encoding", "shape", "bytes", "offset", "checksum"]);
    for entry in index.entries() {
        table.push(vec![
            entry.id.to_string().into(),
            encoding_name(entry).into(),
            shape(entry).into(),
            entry.bytes.into(),
            entry.offset.into(),
            format!("{:016x}", entry.checksum).into(),
        ]);
    }
    let mut text = describe(&metadata.model);
    if let Some(sampling) = &metadata.sampling {
        let _ = writeln!(text, "sampling   {}", describe_sampling(sampling));
    }
    let source = &metadata.provenance.source;
    let _ = writeln!(text, "recipe     {}", metadata.provenance.recipe);
    let _ = writeln!(text, "source     {} ({}), {}", source.name, source.kind, metadata.provenance.converter);
    let _ = writeln!(text, "file       {}", output::bytes(index.file_bytes()));
    if let Some(reason) = file.not_run() {
        let _ = writeln!(text, "not run    {reason}");
    }
    let _ = writeln!(text, "per token  {} of weights when decoding\n", output::bytes(streamed_bytes));
    text.push_str(&table.render(TableFormat::Table));
    if verify {
        let _ = writeln!(text, "verified   {}: every checksum holds", output::bytes(verified));
    }
    let tensors: Value = serde_json::from_str(&table.render(TableFormat::Json))?;
    let json = json!({
        "file": path.display().to_string(),
        "file_bytes": index.file_bytes(),
        "decode_weight_bytes": streamed_bytes,
        "not_run": file.not_run().map(ToString::to_string),
        "verified_bytes": verify.then_some(verified),
        "metadata": serde_json::to_value(metadata)?,
        "tensors": tensors,
    });
    Ok((text, json))
}

fn inspect_plan(path: &Path, args: &PlanArgs) -> anyhow::Result<(String, Value)> {
    let model = Arc::new(open_model(path)?);
    let options = SessionOptions {
        memory: args.memory.limit(),
        context_len: args.context.tokens,
        kv_type: args.cache.kv.into(),
        ..SessionOptions::default()
    };
    let mut placement = Placement::new(&model, &options)?;
    placement.measure(&model);
    Ok((placement::text(&placement), placement::json(&placement)))
}

fn encoding_name(entry: &Entry) -> &'static str {
    match (entry.kind(), entry.encoding) {
        (_, Some(encoding)) => encoding.name(),
        (Kind::Bytes, None) => "bytes",
        (_, None) => "vector",
    }
}

fn shape(entry: &Entry) -> String {
    match entry.kind() {
        Kind::Matrix => format!("{} × {}", entry.rows, entry.cols),
        Kind::Vector | Kind::Bytes => entry.rows.to_string(),
    }
}

fn describe(model: &ModelConfig) -> String {
    let first = &model.layers[0];
    let is_alike = |layer: &Layer| describe_layer(layer) == describe_layer(first);
    let even = model.layers.iter().all(is_alike);
    format!(
        "model      {} ({})\nlayers     {}, hidden {}, {}{}\nvocabulary {}{}\n\
         context    {} tokens\n",
        model.name,
        model.family,
        model.layers.len(),
        model.hidden_len,
        describe_layer(first),
        if even { "" } else { " (the first; layers differ)" },
        model.vocab_len,
        if model.tied_head { ", head tied to the embedding" } else { "" },
        model.context_len,
    )
}

/// The sampling settings that the makers recommend.
fn describe_sampling(sampling: &Sampling) -> String {
    let setting = |name: &str, value: Option<String>| value.map(|value| format!("{name} {value}"));
    let settings = [
        setting("temperature", sampling.temperature.map(|value| value.to_string())),
        setting("top-k", sampling.top_k.map(|value| value.to_string())),
        setting("top-p", sampling.top_p.map(|value| value.to_string())),
        setting("min-p", sampling.min_p.map(|value| value.to_string())),
        setting("repeat penalty", sampling.repeat_penalty.map(|value| value.to_string())),
        setting("over the last", sampling.repeat_window.map(|value| format!("{value} tokens"))),
    ];
    settings.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Dimensions of a layer's attention and feed-forward block.
fn describe_layer(layer: &Layer) -> String {
    let mixer = match layer.attention() {
        Some(attention) => {
            format!("heads {} over {} of {}", attention.heads(), attention.kv_heads(), attention.head_dim)
        }
        None => format!("mixer {}", layer.mixer.kind()),
    };
    match layer.dense() {
        Some(dense) => format!("{mixer}, inner {}", dense.len),
        None => format!("{mixer}, feed-forward {}", layer.feed_forward.kind()),
    }
}

fn inspect_checkpoint(path: &Path) -> anyhow::Result<(String, Value)> {
    let summary = pith_converter::inspect_source(path)?;
    let mut text = describe(&summary.model);
    let _ = writeln!(
        text,
        "checkpoint {} tensors, {}\nmatrices   {}, {:.2} bits a weight",
        summary.tensor_count,
        output::bytes(summary.tensor_bytes),
        summary.matrix_types,
        summary.matrix_bits,
    );
    for warning in &summary.warnings {
        let _ = writeln!(text, "warning    {warning}");
    }
    let json = json!({
        "source": path.display().to_string(),
        "tensor_count": summary.tensor_count,
        "tensor_bytes": summary.tensor_bytes,
        "matrix_types": summary.matrix_types,
        "matrix_bits": summary.matrix_bits,
        "model": serde_json::to_value(&summary.model)?,
        "warnings": summary.warnings,
    });
    Ok((text, json))
}

fn inspect_cpu() -> anyhow::Result<(String, Value)> {
    let machine = Machine::detect()?;
    let kernels: Vec<_> = pith_kernels::available().iter().map(|kernels| kernels.name()).collect();
    let mut text = String::new();
    if let Some(board) = &machine.board {
        let _ = writeln!(text, "board    {board}");
    }
    for processor in &machine.processors {
        let _ = writeln!(text, "cores    {} × {}", processor.core_count, processor.name);
    }
    for cache in &machine.caches {
        let kind = match cache.kind {
            CacheKind::Data => "d",
            CacheKind::Instruction => "i",
            CacheKind::Unified => "",
        };
        let _ = writeln!(
            text,
            "cache    L{}{kind} {} KiB, shared by {}",
            cache.level,
            cache.bytes / 1024,
            cache.shared_by
        );
    }
    if let Some(bytes) = machine.memory_bytes {
        let _ = writeln!(text, "memory   {:.1} GiB", bytes as f64 / (1u64 << 30) as f64);
    }
    let _ = writeln!(
        text,
        "kernels  {} (slowest first; the last is used unless --kernels says otherwise)",
        kernels.join(", ")
    );
    let caches: Vec<_> = machine
        .caches
        .iter()
        .map(|cache| {
            json!({"level": cache.level, "kind": format!("{:?}", cache.kind).to_lowercase(), "bytes": cache.bytes,
                   "shared_by": cache.shared_by})
        })
        .collect();
    let processors: Vec<_> = machine
        .processors
        .iter()
        .map(|processor| {
            json!({"name": processor.name, "cores": processor.core_count, "features": processor.features})
        })
        .collect();
    let json = json!({
        "board": machine.board,
        "processors": processors,
        "caches": caches,
        "memory_bytes": machine.memory_bytes,
        "kernels": kernels,
    });
    Ok((text, json))
}
