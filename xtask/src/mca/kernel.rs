//! Identifies the kernel of each loop in the assembly.

use super::assembly::{Function, Instruction, Loop};
use pith_format::Encoding;
use pith_format::encoding::Operation;

/// Modelled encodings: those of int8 products.
pub fn encodings() -> impl Iterator<Item = Encoding> {
    Encoding::ALL.iter().copied().filter(|encoding| encoding.operation() == Operation::Integer)
}

/// The inner loop of an int8 product.
#[derive(Debug, PartialEq)]
pub struct Kernel {
    /// `neon` or `neon-dotprod`.
    pub kernels: &'static str,
    pub encoding: Encoding,
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
pub fn kernels(functions: &[Function]) -> Vec<Kernel> {
    functions.iter().flat_map(of_function).collect()
}

/// The single-token kernel of an encoding: the longest loop in its own function.
pub fn mat_vec<'a>(kernels: &'a [Kernel], name: &str, encoding: Encoding) -> Option<&'a Kernel> {
    let of = |kernel: &&Kernel| kernel.one_token && kernel.kernels == name && kernel.encoding == encoding;
    kernels.iter().filter(of).max_by_key(|kernel| kernel.products)
}

fn of_function(function: &Function) -> Vec<Kernel> {
    let products =
        |range: &Loop| -> usize { function.instructions[range.start..range.end].iter().map(products).sum() };
    let loops: Vec<Loop> = function.loops().into_iter().filter(|range| products(range) > 0).collect();
    let inner = |range: &&Loop| {
        !loops.iter().any(|other| other != *range && range.start <= other.start && other.end <= range.end)
    };
    loops.iter().filter(inner).filter_map(|&range| kernel(function, range)).collect()
}

fn kernel(function: &Function, range: Loop) -> Option<Kernel> {
    let instructions = &function.instructions[range.start..range.end];
    let multiply = instructions.iter().find(|instruction| products(instruction) > 0)?;
    let encoding = encoding_of(&function.symbol)?;
    let count = |wanted: &dyn Fn(&Instruction) -> bool| {
        instructions.iter().filter(|instruction| wanted(instruction)).count()
    };
    Some(Kernel {
        kernels: if multiply.name() == "sdot" { "neon-dotprod" } else { "neon" },
        encoding,
        one_token: function.symbol.contains("decode"),
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

/// The encoding whose tile a mangled symbol names. Each name follows its length: `9Q4G64Tile`.
/// `None` if it is no product with weights.
fn encoding_of(symbol: &str) -> Option<Encoding> {
    let symbol = symbol.to_lowercase();
    encodings().find(|encoding| {
        let tile = format!("{}tile", encoding.name().replace('-', ""));
        symbol.contains(&format!("{}{tile}", tile.len()))
    })
}

#[cfg(test)]
mod tests {
    use super::super::assembly::functions;
    use super::*;

    const SDOT: &str = "\tsdot\tv1.4s, v2.16b, v3.4b[0]\n";

    fn assembly(function: &str, tile: &str, body: &str) -> String {
        let symbol = format!("_RINvNtNtCs1_12pith_kernels4neon{function}NtNtCs2_11pith_format{tile}EB6_");
        format!("{symbol}:\n.LBB0_1:\n{body}\tb.ne\t.LBB0_1\n\tret\n")
    }

    #[test]
    fn loops_get_their_encoding_from_the_tile_in_the_symbol() {
        let first = format!("{SDOT}\tldr\tq1, [x1]\n\tscvtf\tv1.4s, v1.4s\n");
        let second = "\tsmlal2\tv1.8h, v2.16b, v3.16b\n\text\tv1.16b, v1.16b, v1.16b, #8\n";
        let text = assembly("6blocks7mat_mul", "6Q4Tile", &first)
            + &assembly("6blocks7mat_mul", "9Q4G64Tile", second)
            + &assembly("9attention6scores", "", SDOT);
        let found = kernels(&functions(&text));
        let names: Vec<_> = found.iter().map(|kernel| (kernel.kernels, kernel.encoding)).collect();
        assert_eq!(names, [("neon-dotprod", Encoding::Q4), ("neon", Encoding::Q4G64)]);
        assert_eq!((found[0].products, found[0].loaded_bytes, found[0].conversions), (16, 16, 1));
        assert_eq!((found[1].products, found[1].extracts), (8, 1));
    }

    #[test]
    fn the_kernel_of_one_token_is_the_longest_loop_of_its_function() {
        let decode = |body: &str| assembly("6decode7dotprod", "9Iq4NlTile", body);
        let text =
            decode(SDOT) + &decode(&SDOT.repeat(2)) + &assembly("4four", "9Iq4NlTile", &SDOT.repeat(4));
        let found = kernels(&functions(&text));
        assert_eq!(found.len(), 3);
        assert_eq!(mat_vec(&found, "neon-dotprod", Encoding::Iq4Nl).unwrap().products, 32);
        assert_eq!(mat_vec(&found, "neon-dotprod", Encoding::Q4NL), None);
        assert_eq!(mat_vec(&found, "neon", Encoding::Iq4Nl), None);
    }

    #[test]
    fn every_modelled_encoding_has_a_tile_of_its_name() {
        for encoding in encodings() {
            let tile = format!("{encoding:?}Tile");
            assert_eq!(encoding_of(&format!("_R{}{tile}E", tile.len())), Some(encoding));
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
