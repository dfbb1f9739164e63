//! The compiler's assembly: instructions and loops.

/// One instruction.
#[derive(Debug, Clone, PartialEq)]
pub struct Instruction {
    /// Its text.
    pub text: String,
}

impl Instruction {
    /// `sdot` of `sdot v1.4s, …`.
    pub fn name(&self) -> &str {
        self.text.split_whitespace().next().unwrap_or_default()
    }

    /// The operands after the name.
    pub fn operands(&self) -> &str {
        self.text.split_once(char::is_whitespace).map_or("", |(_, rest)| rest.trim())
    }
}

/// One function.
#[derive(Debug, Default)]
pub struct Function {
    pub symbol: String,
    pub instructions: Vec<Instruction>,
    /// Labels, each with the instruction it precedes.
    labels: Vec<(String, usize)>,
}

/// Instructions `start .. end`; the last one jumps back to the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loop {
    pub start: usize,
    pub end: usize,
}

impl Function {
    /// Every backward jump with its target. Two jumps to one label are one loop, the longer.
    pub fn loops(&self) -> Vec<Loop> {
        let mut loops: Vec<Loop> = Vec::new();
        for (index, instruction) in self.instructions.iter().enumerate() {
            let Some(start) = self.target(instruction).filter(|&start| start <= index) else { continue };
            match loops.iter_mut().find(|other| other.start == start) {
                Some(same) => same.end = same.end.max(index + 1),
                None => loops.push(Loop { start, end: index + 1 }),
            }
        }
        loops
    }

    /// The target of a branch; the label is its last operand.
    fn target(&self, instruction: &Instruction) -> Option<usize> {
        let label = instruction.operands().rsplit([',', ' ']).next()?;
        let branches = ["b", "b.", "cb", "tb"];
        let name = instruction.name();
        let branch = name == branches[0] || branches[1..].iter().any(|start| name.starts_with(start));
        let known = || self.labels.iter().find(|(name, _)| name == label);
        known().filter(|_| branch).map(|(_, at)| *at)
    }
}

/// Reads the functions of a file of aarch64 assembly.
pub fn functions(text: &str) -> Vec<Function> {
    let mut list: Vec<Function> = Vec::new();
    for line in text.lines() {
        let code = line.split("//").next().unwrap_or_default().trim();
        if let Some(label) = code.strip_suffix(':') {
            if !label.starts_with('.') {
                list.push(Function { symbol: label.into(), ..Function::default() });
            } else if let Some(function) = list.last_mut() {
                function.labels.push((label.into(), function.instructions.len()));
            }
            continue;
        }
        let Some(function) = list.last_mut() else { continue };
        if !code.is_empty() && !code.starts_with('.') {
            // A line of inline assembly may hold several.
            for text in code.split(';').map(str::trim).filter(|text| !text.is_empty()) {
                function.instructions.push(Instruction { text: text.replace('\t', " ") });
            }
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
\t.text
_RNv5outer:                            // @_RNv5outer
\t.loc\t1 7 9 is_stmt 1               // kernels/src/neon/q4.rs:7:9
\tstp\tx29, x30, [sp, #-16]!
.LBB0_1:                               // =>This Loop Header: Depth=1
\tmov\tx8, #3
.LBB0_2:
\t.loc\t2 92 9 // kernels/src/neon/dot.rs:92:9 @[ kernels/src/neon/q4.rs:82:24 @[ kernels/src/neon/blocks.rs:55:22 ] ]
\t//APP
\tsdot\tv1.4s, v2.16b, v3.4b[0]
\t//NO_APP
\tcbz\tx9, .LBB0_4
\tsubs\tx8, x8, #1
\tb.ne\t.LBB0_2
\ttbnz\tw5, #0, .LBB0_1
.LBB0_4:
\tbl\tother
\tret
_RNv5other:
\tret
";

    #[test]
    fn functions_and_instructions_are_read() {
        let list = functions(TEXT);
        assert_eq!(
            list.iter().map(|function| function.symbol.as_str()).collect::<Vec<_>>(),
            ["_RNv5outer", "_RNv5other"]
        );
        let outer = &list[0];
        let sdot = outer.instructions.iter().find(|instruction| instruction.name() == "sdot").unwrap();
        assert_eq!(sdot.operands(), "v1.4s, v2.16b, v3.4b[0]");
        assert_eq!(list[1].instructions.len(), 1);
    }

    #[test]
    fn loops_are_the_jumps_backwards() {
        let outer = &functions(TEXT)[0];
        assert_eq!(outer.loops(), [Loop { start: 2, end: 6 }, Loop { start: 1, end: 7 }]);
    }
}
