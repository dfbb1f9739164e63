//! The lower convex hull of divergence over size.

/// A size and the divergence there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Bytes of the file, or another measure.
    pub size: f64,
    /// Mean KL divergence, above 0.
    pub kl: f64,
}

/// The hull's divergence at `size`, linear in size and log KL; `None` beyond its ends.
pub fn at(points: &[Point], size: f64) -> Option<f64> {
    let mut sorted: Vec<(f64, f64)> = points.iter().map(|point| (point.size, point.kl.ln())).collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let mut hull: Vec<(f64, f64)> = Vec::new();
    for point in sorted {
        while let [.., a, b] = hull[..] {
            // b is above the line from a to the new point.
            if (b.1 - a.1) * (point.0 - a.0) < (point.1 - a.1) * (b.0 - a.0) {
                break;
            }
            hull.pop();
        }
        hull.push(point);
    }
    let pair = hull.windows(2).find(|pair| (pair[0].0..=pair[1].0).contains(&size))?;
    let part = (size - pair[0].0) / (pair[1].0 - pair[0].0);
    Some((pair[0].1 + part * (pair[1].1 - pair[0].1)).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_above_the_line_do_not_count() {
        let points =
            [(2.0, 0.04), (3.0, 0.03), (4.0, 0.01), (3.0, 0.018)].map(|(size, kl)| Point { size, kl });
        let close = |found: Option<f64>, expected: f64| (found.unwrap() / expected - 1.0).abs() < 1e-12;
        assert!(close(at(&points, 3.0), 0.018));
        assert!(close(at(&points, 3.5), (0.018f64 * 0.01).sqrt()));
        assert_eq!(at(&points, 4.1), None);
        let convex = [(2.0, 0.04), (3.0, 0.03), (4.0, 0.01)].map(|(size, kl)| Point { size, kl });
        assert!(close(at(&convex, 3.0), 0.02));
    }
}
