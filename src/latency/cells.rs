//! Cells of the globe, one degree by one degree, and what the field says of them: worked out once for each, and asked for by all networks
//! that lie in it.

use super::belief::Belief;
use crate::geo::Coordinates;

/// Cells there are.
pub const CELLS: usize = 180 * 360;
/// In place of a number: nothing is kept of the cell. There are fewer cells.
const NONE: u16 = u16::MAX;

/// What is kept of some cells: a million networks look here, so a look is two reads of memory, and no hash.
#[derive(Debug, Default)]
pub struct Cells {
    numbers: Vec<u16>, // by cell; empty until something is kept
    values: Vec<f32>,  // by number: the means towards all regions, then the variances
    kept: u16,
    regions: usize,
}

/// The field in one cell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FieldAt<'c> {
    /// The mean, by region.
    pub mean: &'c [f32],
    /// The variance, by region.
    pub var: &'c [f32],
}

impl Cells {
    /// What is kept of a cell.
    pub fn get(&self, cell: u32) -> Option<FieldAt<'_>> {
        let number = self.numbers.get(cell as usize).filter(|number| **number != NONE)?;
        let (mean, var) =
            self.values[usize::from(*number) * 2 * self.regions..][..2 * self.regions].split_at(self.regions);
        Some(FieldAt { mean, var })
    }

    /// Keeps the belief of a cell of which nothing is kept yet; all have the same regions.
    pub fn put(&mut self, cell: u32, belief: &Belief) {
        self.numbers.resize(CELLS, NONE);
        self.regions = belief.mean.len();
        self.numbers[cell as usize] = self.kept;
        self.kept += 1;
        self.values.extend_from_slice(&belief.mean);
        self.values.extend_from_slice(&belief.var);
    }
}

/// The cell of one degree by one degree that a point lies in.
pub fn degree_cell(point: Coordinates) -> u32 {
    let row = (point.latitude + 90.0).floor().clamp(0.0, 179.0) as u32;
    let column = (point.longitude + 180.0).floor().clamp(0.0, 359.0) as u32;
    row * 360 + column
}

/// The middle of such a cell.
pub fn centre_of_cell(cell: u32) -> Coordinates {
    Coordinates { latitude: (cell / 360) as f32 - 89.5, longitude: (cell % 360) as f32 - 179.5 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_found_and_nothing_else() {
        let mut cells = Cells::default();
        assert_eq!(cells.get(7), None);
        let belief = |n: f32| Belief { mean: vec![n, n + 0.1], var: vec![n + 0.2, n + 0.3] };
        for cell in [7, CELLS as u32 - 1, 0] {
            cells.put(cell, &belief(cell as f32));
        }
        for cell in [0, 7, CELLS as u32 - 1] {
            let Belief { mean, var } = belief(cell as f32);
            assert_eq!(cells.get(cell), Some(FieldAt { mean: &mean, var: &var }));
        }
        assert_eq!(cells.get(8), None);
    }

    #[test]
    fn without_regions_there_is_an_empty_field() {
        let mut cells = Cells::default();
        [3, 5].iter().for_each(|cell| cells.put(*cell, &Belief::default()));
        assert_eq!(cells.get(5), Some(FieldAt { mean: &[], var: &[] }));
    }

    #[test]
    fn all_cells_have_numbers() {
        let mut cells = Cells::default();
        (0..CELLS as u32).for_each(|cell| cells.put(cell, &Belief::blank(1, cell as f32)));
        assert!((0..CELLS as u32).all(|cell| cells.get(cell).is_some_and(|found| found.var == [cell as f32])));
    }
}
