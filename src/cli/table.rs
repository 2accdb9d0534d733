//! Tables: aligned columns, no frames, so that they read well and `awk` cuts them.

use comfy_table::{Table, presets::NOTHING};

/// A table's text. Without rows it is `empty`.
pub(super) fn table(
    header: &[&str],
    rows: impl IntoIterator<Item = Vec<String>>,
    empty: &str,
) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header.iter().map(|word| word.to_uppercase()));
    for row in rows {
        table.add_row(row);
    }
    if table.row_count() == 0 {
        return empty.to_owned();
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let text = table.to_string();
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// Values in one cell.
pub(super) fn list<T: std::fmt::Display>(values: &[T]) -> String {
    match values {
        [] => "-".to_owned(),
        _ => values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

/// An optional value in one cell.
pub(super) fn or_dash(value: Option<&str>) -> String {
    value.filter(|text| !text.is_empty()).unwrap_or("-").to_owned()
}

/// `1 block`, `2 blocks`.
pub(super) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_without_spaces() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["long".to_owned(), "2".to_owned()]];
        assert_eq!(table(&["name", "n"], rows, ""), "NAME  N\na     1\nlong  2");
        assert_eq!(table(&["name"], [], "nobody"), "nobody");
    }
}
