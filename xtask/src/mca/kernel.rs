//! Identifies the kernel of each loop in the assembly.

use super::assembly::{Function, Instruction, Loop, Place};
use std::collections::HashMap;
use std::path::Path;

/// Modelled encodings; a longer name comes before one that it contains.
pub const ENCODINGS: [&str; 9] = ["q8", "q6", "q5", "q4-g64", "q4-nl", "q4", "q3", "q2", "ternary"];

/// The inner loop of an int8 product.
#[derive(Debug, PartialEq)]
pub struct Kernel {
    /// `neon` or `neon-dotprod`.
    pub kernels: &'static str,
    pub encoding: &'static str,
    /// Whether its function computes a single token, `kernels/src/neon/decode.rs`.
    pub one_token: bool,
    /// Products of a weight and an activation per iteration.
    pub products: usize,
    /// Bytes loaded per iteration.
    pub loaded_bytes: usize,
    /// Vector stores to and loads from the stack.
    pub spills: usize,
    /// `ext` instructions, which the compiler puts before an unknown multiplication of upper
    /// halves.
    pub extracts: usize,
    /// Conversions to f32 in the loop; none if the scales are applied outside.
    pub conversions: usize,
    /// The instructions of one iteration.
    pub instructions: Vec<Instruction>,
}

/// The innermost int8 loops of all functions.
pub fn kernels(functions: &[Function], sources: &mut Sources) -> Vec<Kernel> {
    functions.iter().flat_map(|function| of_function(function, sources)).collect()
}

/// The single-token kernel of an encoding: the longest loop in its own function.
pub fn mat_vec<'a>(kernels: &'a [Kernel], name: &str, encoding: &str) -> Option<&'a Kernel> {
    let of = |kernel: &&Kernel| kernel.one_token && kernel.kernels == name && kernel.encoding == encoding;
    kernels.iter().filter(of).max_by_key(|kernel| kernel.products)
}

fn of_function(function: &Function, sources: &mut Sources) -> Vec<Kernel> {
    let products =
        |range: &Loop| -> usize { function.instructions[range.start..range.end].iter().map(products).sum() };
    let loops: Vec<Loop> = function.loops().into_iter().filter(|range| products(range) > 0).collect();
    let inner = |range: &&Loop| {
        !loops.iter().any(|other| other != *range && range.start <= other.start && other.end <= range.end)
    };
    loops.iter().filter(inner).filter_map(|&range| kernel(function, range, sources)).collect()
}

fn kernel(function: &Function, range: Loop, sources: &mut Sources) -> Option<Kernel> {
    let instructions = &function.instructions[range.start..range.end];
    let multiplies: Vec<&Instruction> =
        instructions.iter().filter(|instruction| products(instruction) > 0).collect();
    // The compiler loses the place of some instructions that it moves.
    let named = |multiply: &&Instruction| sources.encoding(function.chain(multiply), &function.symbol);
    let one_token = function.symbol.contains("decode");
    let of_name = of_function_name(&function.symbol).filter(|_| one_token);
    let encoding = of_name.or_else(|| multiplies.iter().find_map(named))?;
    let count = |wanted: &dyn Fn(&Instruction) -> bool| {
        instructions.iter().filter(|instruction| wanted(instruction)).count()
    };
    Some(Kernel {
        kernels: if multiplies[0].name() == "sdot" { "neon-dotprod" } else { "neon" },
        encoding,
        one_token,
        products: instructions.iter().map(products).sum(),
        loaded_bytes: instructions.iter().map(loaded_bytes).sum(),
        spills: count(&is_spill),
        extracts: count(&|instruction| instruction.name() == "ext"),
        conversions: count(&|instruction| instruction.name() == "scvtf"),
        instructions: instructions.to_vec(),
    })
}

/// int8 products of one instruction.
fn products(instruction: &Instruction) -> usize {
    let operands = instruction.operands();
    match instruction.name() {
        "sdot" if operands.contains(".4s") => 16,
        "smull" | "smull2" | "smlal" | "smlal2" if operands.contains(".8h,") => 8,
        _ => 0,
    }
}

/// Bytes of vectors and floats loaded by one instruction, stack excluded.
fn loaded_bytes(instruction: &Instruction) -> usize {
    let operands = instruction.operands();
    let (name, registers) = (instruction.name(), operands.split('[').next().unwrap_or_default());
    if is_stack(operands) {
        return 0;
    }
    let width = |register: &str| match register.trim().chars().next() {
        Some('q') => 16,
        Some('d') => 8,
        Some('s') => 4,
        _ => 0,
    };
    match name {
        "ldr" | "ldur" | "ldp" | "ldnp" => registers.split(',').map(width).sum(),
        "ld1" => {
            registers.split(',').filter(|part| part.contains(".16b") || part.contains(".8h")).count() * 16
        }
        _ => 0,
    }
}

/// Whether a vector is spilled to or reloaded from the stack.
fn is_spill(instruction: &Instruction) -> bool {
    let moves = ["str", "stp", "ldr", "ldp", "stur", "ldur"].contains(&instruction.name());
    moves && instruction.operands().starts_with('q') && is_stack(instruction.operands())
}

fn is_stack(operands: &str) -> bool {
    operands.contains("[sp") || operands.contains("[x29")
}

/// The source files, read once.
#[derive(Default)]
pub struct Sources {
    files: HashMap<String, Vec<String>>,
    root: std::path::PathBuf,
}

impl Sources {
    /// Paths of places are relative to `root`.
    pub fn new(root: &Path) -> Self {
        Self { files: HashMap::new(), root: root.into() }
    }

    /// The encoding of a chain of calls: from the heads of the items on the way, else from the
    /// types in the symbol, else from the file names. `None` if it is no product with weights.
    fn encoding(&mut self, chain: &[Place], symbol: &str) -> Option<&'static str> {
        let own: Vec<&Place> = chain.iter().filter(|place| place.file.contains("kernels/src/")).collect();
        let stem = |place: &Place| place.file.rsplit('/').next().unwrap_or_default().replace(".rs", "");
        if own.iter().any(|place| ["attention", "probe"].contains(&stem(place).as_str())) {
            return None;
        }
        let heads: Vec<String> = own.iter().map(|place| self.head(place)).collect();
        let by_head = heads.iter().find_map(|head| named(head));
        by_head.or_else(|| of_type(symbol)).or_else(|| own.iter().find_map(|place| named(&stem(place))))
    }

    /// The first line of the item around a place: the last unindented line before it.
    fn head(&mut self, place: &Place) -> String {
        let path = self.root.join(&place.file);
        let lines = self.files.entry(place.file.clone()).or_insert_with(|| {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            text.lines().map(String::from).collect()
        });
        let before = &lines[..place.line.min(lines.len())];
        let starts = |line: &&String| line.starts_with(|first: char| first.is_alphabetic());
        before.iter().rev().find(starts).cloned().unwrap_or_default()
    }
}

/// The encoding in a mangled symbol's last name.
fn of_function_name(symbol: &str) -> Option<&'static str> {
    let plain = symbol.replace('_', "-");
    let ends = |encoding: &&&str| {
        // A name follows its length; older symbols append a hash.
        let name = format!("{}{encoding}", encoding.len());
        plain.ends_with(&name) || plain.contains(&format!("{name}17h"))
    };
    ENCODINGS.iter().find(ends).copied()
}

/// The encoding named in a text, as `Q4G64`, `q4_g64` or `q4g64`, if exactly one.
fn named(text: &str) -> Option<&'static str> {
    let mut plain = text.to_lowercase().replace(['_', '-'], "");
    let mut found = Vec::new();
    for encoding in ENCODINGS {
        let name = encoding.replace('-', "");
        if plain.contains(&name) {
            found.push(encoding);
            plain = plain.replace(&name, "");
        }
    }
    (found.len() == 1).then(|| found[0])
}

/// The encoding type in a mangled symbol, where each name follows its length: `5Q4G64`.
fn of_type(symbol: &str) -> Option<&'static str> {
    let name = |encoding: &str| match encoding {
        "ternary" => "Ternary".to_string(),
        _ => encoding.replace('-', "").to_uppercase(),
    };
    let holds = |encoding: &&str| symbol.contains(&format!("{}{}", name(encoding).len(), name(encoding)));
    ENCODINGS.into_iter().find(holds)
}

#[cfg(test)]
mod tests {
    use super::super::assembly::functions;
    use super::*;

    const SOURCE: &str = "\
impl<D: Dot> Block for Q4<D> {
    fn block() {
        one
    }
}

impl<D: Dot> Block for Q4G64<D> {
    fn block() {
        two
    }
}
";

    fn sources(folder: &Path) -> Sources {
        std::fs::create_dir_all(folder.join("kernels/src/neon")).unwrap();
        std::fs::write(folder.join("kernels/src/neon/q4.rs"), SOURCE).unwrap();
        Sources::new(folder)
    }

    fn assembly(symbol: &str, line: usize, body: &str) -> String {
        format!(
            "{symbol}:\n.LBB0_1:\n\t.loc 1 2 3 // kernels/src/neon/dot.rs:92:9 @[ kernels/src/neon/q4.rs:{line}:5 ]\n\
             {body}\tb.ne\t.LBB0_1\n\tret\n"
        )
    }

    #[test]
    fn loops_get_their_encoding_from_the_item_they_come_from() {
        let folder = tempfile::tempdir().unwrap();
        let text =
            assembly("a", 3, "\tsdot\tv1.4s, v2.16b, v3.4b[0]\n\tldr\tq1, [x1]\n\tscvtf\tv1.4s, v1.4s\n")
                + &assembly("b", 9, "\tsmlal2\tv1.8h, v2.16b, v3.16b\n\text\tv1.16b, v1.16b, v1.16b, #8\n");
        let found = kernels(&functions(&text), &mut sources(folder.path()));
        let names: Vec<_> = found.iter().map(|kernel| (kernel.kernels, kernel.encoding)).collect();
        assert_eq!(names, [("neon-dotprod", "q4"), ("neon", "q4-g64")]);
        assert_eq!((found[0].products, found[0].loaded_bytes, found[0].conversions), (16, 16, 1));
        assert_eq!((found[1].products, found[1].extracts), (8, 1));
    }

    #[test]
    fn a_symbol_names_the_encoding_where_the_source_does_not() {
        assert_eq!(of_type("_RINvNvXs_4neon3dot4SdotINtNtB9_2q45Q4G64BM_E"), Some("q4-g64"));
        assert_eq!(of_type("_RINvNvXs_4neon3dot4SdotINtNtB9_2q42Q4BM_E"), Some("q4"));
        assert_eq!(of_type("_RINvXs_4neon3dot4SdotINtB9_6PlanesNtNtB9_5coded7TernaryBM_E"), Some("ternary"));
        assert_eq!(of_type("_RINvNvXs_4neon3dot4SdotINtNtB9_2q49GenericBM_E"), None);
        assert_eq!(named("mat_vec_q4_g64"), Some("q4-g64"));
        assert_eq!(named("impl Block for Q8"), Some("q8"));
        assert_eq!(named("fn add_group"), None);
    }

    #[test]
    fn the_loop_for_one_token_is_in_a_function_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let sdot = "\tsdot\tv1.4s, v2.16b, v3.4b[0]\n";
        let one = assembly("_RNvNtNtNtCs1_7kernels4neon6decode7dotprod2q4", 3, sdot);
        let wide = assembly("_RNvNtNtNtCs1_7kernels4neon6decode7dotprod6q4_g64", 3, &sdot.repeat(2));
        let four = assembly("four", 3, &format!("\tldp\tq1, q2, [x1]\n{sdot}{sdot}"));
        let found = kernels(&functions(&(four + &one + &wide)), &mut sources(folder.path()));
        assert_eq!(found.len(), 3);
        assert_eq!(mat_vec(&found, "neon-dotprod", "q4").unwrap().products, 16);
        assert_eq!(mat_vec(&found, "neon-dotprod", "q4-g64").unwrap().products, 32);
        assert_eq!(mat_vec(&found, "neon-dotprod", "q8"), None);
        // In code shared by many encodings only the function's name tells.
        let shared = assembly("_RNvNtNtNtCs1_7kernels4neon6decode7dotprod7ternary", 1, sdot)
            .replace("kernels/src/neon/q4.rs", "kernels/src/neon/planes.rs");
        let found = kernels(&functions(&shared), &mut sources(folder.path()));
        assert_eq!(mat_vec(&found, "neon-dotprod", "ternary").unwrap().products, 16);
        assert_eq!(of_function_name("_ZN4neon6decode5plain2q817h0123456789abcdefE"), Some("q8"));
    }

    #[test]
    fn encodings_are_listed_with_the_longer_name_first() {
        for (index, encoding) in ENCODINGS.iter().enumerate() {
            assert!(ENCODINGS[index + 1..].iter().all(|later| !later.contains(encoding)));
        }
    }

    #[test]
    fn vectors_on_the_stack_are_spills_and_no_loads() {
        let text = "f:\n\tstr\tq1, [sp, #16]\n\tldp\tq2, q3, [x29, #-32]\n\tldr\tx1, [sp]\n\tldr\tq4, [x2]\n";
        let function = &functions(text)[0];
        let spills = function.instructions.iter().filter(|instruction| is_spill(instruction)).count();
        let bytes: usize = function.instructions.iter().map(loaded_bytes).sum();
        assert_eq!((spills, bytes), (2, 16));
    }
}
