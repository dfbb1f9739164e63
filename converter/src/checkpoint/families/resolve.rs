//! Resolves a checkpoint: its family, its configuration, and a source for every tensor of the file.

use std::collections::HashSet;

use pith_format::{Kind, ModelConfig, Role, TensorId};

use super::binding::{Binding, file_order};
use super::config::Config;
use super::family::{Family, Translation};
use super::head::same_values;
use super::keys::Keys;
use super::rule::{Presence, Rule};
use super::wrapper::{WRAPPERS, Wrapper, is_of_senses};
use super::{FAMILIES, gguf, huggingface, known_names};
use crate::checkpoint::{Checkpoint, CheckpointError, TensorInfo};

/// Suffixes of tensors that are weights in no family: frequencies, which the configuration gives.
const IGNORED: &[&str] =
    &["rotary_emb.inv_freq", "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"];

/// A checkpoint in the terms of a `.pith` file.
#[derive(Debug)]
pub(crate) struct Architecture {
    pub(crate) model: ModelConfig,
    /// In the file's order.
    pub(crate) bindings: Vec<Binding>,
    pub(crate) warnings: Vec<String>,
}

impl Architecture {
    /// Finds the family's table and applies it. Of the weights, reads only the divisors of
    /// frequencies, and a head that the configuration ties to the embedding.
    pub(crate) fn resolve(checkpoint: &Checkpoint) -> Result<Self, CheckpointError> {
        let sources = Sources::of(checkpoint)?;
        let translation = sources.translate()?;
        sources.bind(translation)
    }
}

/// A family's table over one checkpoint.
struct Sources<'a> {
    checkpoint: &'a Checkpoint,
    family: &'static Family,
    rules: &'static [&'static [Rule]],
    config: Option<Config<'a>>,
    /// Prefix that the names of this checkpoint lack.
    lacking: &'static str,
    /// Prefix that they have.
    wrapper: Wrapper,
}

impl<'a> Sources<'a> {
    fn of(checkpoint: &'a Checkpoint) -> Result<Self, CheckpointError> {
        let wrapper = WRAPPERS[0];
        let Some(value) = checkpoint.text_config() else {
            let family = gguf_family(checkpoint)?;
            let rules = family.gguf_tensors;
            return Ok(Self { checkpoint, family, rules, config: None, lacking: "", wrapper });
        };
        let place = checkpoint.path().join("config.json").display().to_string();
        let config = Config::new(place, value);
        let family = huggingface_family(checkpoint, &config)?;
        let mut sources =
            Self { checkpoint, family, rules: family.tensors, config: Some(config), lacking: "", wrapper };
        for (lacking, wrapper) in
            WRAPPERS.iter().flat_map(|&wrapper| [("", wrapper), (family.prefix, wrapper)])
        {
            (sources.lacking, sources.wrapper) = (lacking, wrapper);
            if sources.find(Role::TokenEmbedding).is_some() {
                return Ok(sources);
            }
        }
        (sources.lacking, sources.wrapper) = ("", wrapper);
        Ok(sources)
    }

    fn name(&self, rule: &Rule, layer: Option<usize>) -> String {
        let name = rule.source_name(layer);
        self.wrapper.wrapped(name.strip_prefix(self.lacking).unwrap_or(&name))
    }

    fn rule(&self, role: Role) -> Option<&'static Rule> {
        self.rules.iter().flat_map(|rules| rules.iter()).find(|rule| rule.role == role)
    }

    /// The source of a tensor that belongs to no layer.
    fn find(&self, role: Role) -> Option<&'a TensorInfo> {
        self.checkpoint.tensor(&self.name(self.rule(role)?, None))
    }

    fn translate(&self) -> Result<Translation, CheckpointError> {
        let vocab_len = self.find(Role::TokenEmbedding).map_or(0, TensorInfo::rows);
        let mut translation = match (&self.config, self.checkpoint.metadata()) {
            (Some(config), _) => {
                let place = self.checkpoint.path().join("generation_config.json").display().to_string();
                let generation = self.checkpoint.generation_config().map(|value| Config::new(place, value));
                huggingface::translate(self.family, config, generation.as_ref(), vocab_len)?
            }
            (None, Some(metadata)) => {
                let prefix = metadata.require::<&str>("general.architecture")?;
                gguf::translate(self.family, &Keys::new(self.checkpoint, metadata, prefix), vocab_len)?
            }
            (None, None) => unreachable!("a checkpoint has a configuration or metadata"),
        };
        if let (true, Some(head), Some(embedding)) =
            (translation.model.tied_head, self.find(Role::Head), self.find(Role::TokenEmbedding))
            && !same_values(self.checkpoint, head, embedding)?
        {
            // transformers 5 takes the head too.
            translation.model.tied_head = false;
            translation.warnings.push(format!(
                "{} differs from {}, although the configuration ties them: the head is used",
                head.name, embedding.name
            ));
        }
        if !translation.model.tied_head && self.find(Role::Head).is_none() {
            translation.model.tied_head = true;
            if self.config.as_ref().is_some_and(|config| config.has("tie_word_embeddings")) {
                let warning =
                    "tie_word_embeddings is false, but there is no head: the embedding serves as one";
                translation.warnings.push(warning.into());
            }
        }
        Ok(translation)
    }

    fn bind(&self, translation: Translation) -> Result<Architecture, CheckpointError> {
        let Translation { model, mut warnings } = translation;
        let mut bindings = Vec::new();
        let mut used: HashSet<String> = HashSet::new();
        for id in file_order(model.layers.len()) {
            let Some(rule) = self.rule(id.role) else { continue };
            let name = self.name(rule, id.layer);
            if id.role == Role::Head && model.tied_head {
                used.insert(name);
                continue;
            }
            if let Some(binding) = self.binding(rule, id, &name, &model)? {
                bindings.push(binding);
                used.insert(name);
            }
        }
        let ignored = |name: &str| IGNORED.iter().chain(self.family.ignored).any(|end| name.ends_with(end));
        let is_of_senses = |name: &str| self.is_part() && is_of_senses(name);
        let left_out = self.checkpoint.tensors().filter(|info| is_of_senses(&info.name)).count();
        if left_out > 0 {
            warnings
                .push(format!("{left_out} tensors that see or hear are left out: the file is of text only"));
        }
        let unknown = self
            .checkpoint
            .tensors()
            .filter(|info| !used.contains(&info.name) && !ignored(&info.name) && !is_of_senses(&info.name));
        for TensorInfo { name, .. } in unknown {
            if !self.adds_nothing(name)? {
                let (path, tensor) = (self.checkpoint.path().into(), name.clone());
                return Err(CheckpointError::UnknownTensor { path, tensor, family: self.family.name });
            }
        }
        model.validate()?;
        Ok(Architecture { model, bindings, warnings })
    }

    /// Whether the language model is a part of a model of more than text.
    fn is_part(&self) -> bool {
        self.checkpoint.config().is_some_and(|config| config.get("text_config").is_some())
    }

    /// Whether `name` is a bias of zeros, which AutoGPTQ writes for every quantized matrix.
    fn adds_nothing(&self, name: &str) -> Result<bool, CheckpointError> {
        let base =
            name.strip_suffix(".bias").filter(|base| self.checkpoint.is_packed(&format!("{base}.weight")));
        Ok(base.is_some() && self.checkpoint.load_f32(name)?.iter().all(|&value| value == 0.0))
    }

    /// The source of `id`; `None` for an optional tensor that the checkpoint lacks.
    fn binding(
        &self,
        rule: &Rule,
        id: TensorId,
        name: &str,
        model: &ModelConfig,
    ) -> Result<Option<Binding>, CheckpointError> {
        let found = self.checkpoint.tensor(name);
        let required = match (rule.presence, &self.config) {
            (Presence::Flag(key, default), Some(config)) => {
                if !config.flag(key, default)? {
                    return Ok(None);
                }
                true
            }
            (Presence::Required, _) => true,
            _ => false,
        };
        let path = self.checkpoint.path().to_path_buf();
        let Some(found) = found else {
            let tensor = name.to_string();
            return if required {
                Err(CheckpointError::MissingTensor { path, tensor, id })
            } else {
                Ok(None)
            };
        };
        let (rows, cols) = id.shape(model).expect("a table has roles that its family's layers have");
        let (source_rows, row_map) = rule.row_map(model, id);
        let expected = match (id.role.kind(), rule.transposed) {
            (Kind::Matrix, false) => vec![source_rows, cols],
            (Kind::Matrix, true) => vec![cols, source_rows],
            _ => vec![source_rows],
        };
        if found.shape != expected {
            let (tensor, shapes) = (name.to_string(), Box::new([found.shape.clone(), expected]));
            return Err(CheckpointError::SourceShape { path, tensor, id, shapes });
        }
        let (tensor, dtype) = (name.to_string(), found.dtype);
        if !dtype.is_loadable() {
            return Err(CheckpointError::UnsupportedType { path, tensor, found: dtype });
        }
        if id.role.kind() == Kind::Matrix && !cols.is_multiple_of(dtype.block_len()) {
            let shape = found.shape.iter().map(|&dim| dim as u64).collect();
            return Err(CheckpointError::Shape { path, tensor, dtype, shape });
        }
        let (transposed, offset) = (rule.transposed, rule.offset);
        // Several roles may share the tensor.
        let share = u128::from(found.bytes) * (rows * cols) as u128 / found.elements() as u128;
        let stored_bytes = share as u64;
        let survey = None;
        let binding =
            Binding { id, tensor, dtype, rows, cols, row_map, transposed, offset, stored_bytes, survey };
        Ok(Some(binding))
    }
}

fn huggingface_family(
    checkpoint: &Checkpoint,
    config: &Config<'_>,
) -> Result<&'static Family, CheckpointError> {
    let model_type = config.text(&["model_type"])?;
    let classes = config.texts("architectures")?.unwrap_or_default();
    let family = match model_type {
        Some(name) => FAMILIES.iter().find(|family| family.model_types.contains(&name)),
        None => FAMILIES.iter().find(|family| classes.iter().any(|class| family.classes.contains(class))),
    };
    family.copied().ok_or_else(|| {
        let found =
            model_type.or(classes.first().copied()).map_or("not given".into(), |name| format!("{name:?}"));
        unknown(checkpoint, found)
    })
}

fn gguf_family(checkpoint: &Checkpoint) -> Result<&'static Family, CheckpointError> {
    let metadata = checkpoint.metadata().expect("a checkpoint without config.json is GGUF");
    let name = metadata.require::<&str>("general.architecture")?;
    let family = FAMILIES.iter().find(|family| family.gguf_names.contains(&name));
    family.copied().ok_or_else(|| unknown(checkpoint, format!("{name:?}")))
}

fn unknown(checkpoint: &Checkpoint, found: String) -> CheckpointError {
    CheckpointError::UnknownFamily { path: checkpoint.path().into(), found, known: known_names() }
}
