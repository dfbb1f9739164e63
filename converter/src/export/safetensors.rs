//! Writing safetensors: one file, or shards and an index.

use std::io::{BufWriter, Write};

use serde_json::{Map, Value, json};

use super::ExportType;
use super::folder::{Staging, failed};
use super::tensor::{Put, Target};
use crate::error::ConvertError;

/// Assignment of tensors to files.
pub(super) struct Shards<'a, 'b> {
    files: Vec<Vec<&'a Target<'b>>>,
    dtype: ExportType,
}

impl<'a, 'b> Shards<'a, 'b> {
    /// A new file begins where the next tensor would make the current one larger than
    /// `shard_bytes`.
    pub(super) fn plan(targets: &'a [Target<'b>], dtype: ExportType, shard_bytes: u64) -> Self {
        let (mut files, mut bytes): (Vec<Vec<_>>, u64) = (vec![Vec::new()], 0);
        for target in targets {
            let own = target.bytes(dtype);
            if bytes > 0 && bytes.saturating_add(own) > shard_bytes {
                files.push(Vec::new());
                bytes = 0;
            }
            bytes += own;
            files.last_mut().expect("there is one file at least").push(target);
        }
        Self { files, dtype }
    }

    /// Writes all files; `write` supplies the bytes of a tensor.
    pub(super) fn write(
        &self,
        staging: &mut Staging,
        mut write: impl FnMut(&Target<'b>, &mut Put<'_>) -> Result<(), ConvertError>,
    ) -> Result<(), ConvertError> {
        let count = self.files.len();
        let (mut weight_map, mut total) = (Map::new(), 0);
        for (index, targets) in self.files.iter().enumerate() {
            let name = match count {
                1 => "model.safetensors".to_string(),
                _ => format!("model-{:05}-of-{count:05}.safetensors", index + 1),
            };
            let path = staging.path(&name);
            let mut file = BufWriter::with_capacity(1 << 20, staging.file(&name)?);
            file.write_all(&self.header(targets)).map_err(failed(&path, "write"))?;
            for target in targets {
                write(target, &mut |bytes| file.write_all(bytes).map_err(failed(&path, "write")))?;
                weight_map.insert(target.name().into(), json!(name));
                total += target.bytes(self.dtype);
            }
            let file = file.into_inner().map_err(|error| failed(&path, "write")(error.into_error()))?;
            file.sync_all().map_err(failed(&path, "sync"))?;
        }
        if count > 1 {
            let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
            staging.put("model.safetensors.index.json", format!("{index:#}\n").as_bytes())?;
        }
        Ok(())
    }

    /// The header's length and the header, padded so that the data begins at a multiple of 8.
    fn header(&self, targets: &[&Target<'_>]) -> Vec<u8> {
        let name = match self.dtype {
            ExportType::F16 => "F16",
            ExportType::Bf16 => "BF16",
            ExportType::F32 => "F32",
        };
        let mut header = Map::new();
        header.insert("__metadata__".into(), json!({"format": "pt"}));
        let mut end = 0;
        for target in targets {
            let start = end;
            end += target.bytes(self.dtype);
            let entry = json!({"dtype": name, "shape": target.shape(), "data_offsets": [start, end]});
            header.insert(target.name().into(), entry);
        }
        let mut text = Value::Object(header).to_string().into_bytes();
        text.resize(text.len().next_multiple_of(8), b' ');
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend(text);
        bytes
    }
}
