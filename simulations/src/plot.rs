//! One plot: how long it takes until all is well again, as a histogram in SVG.

use std::fmt::Write;

/// Width and height of the plot, and the space around it.
const SIZE: (usize, usize) = (720, 360);
const MARGIN: usize = 48;
/// Number of bars.
const BARS: usize = 40;

/// The histogram of some times in seconds, with a title.
pub fn histogram(title: &str, seconds: &[f64]) -> String {
    let most = seconds.iter().copied().fold(1.0_f64, f64::max);
    let mut bars = [0_usize; BARS];
    for second in seconds {
        let index = (second / most * BARS as f64) as usize;
        bars[index.min(BARS - 1)] += 1;
    }
    let highest = bars.iter().copied().max().unwrap_or(0).max(1);
    let (width, height) = (SIZE.0 - 2 * MARGIN, SIZE.1 - 2 * MARGIN);
    let mut svg = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' width='{}' height='{}' \
         font-family='sans-serif' font-size='12'>\n<text x='{MARGIN}' y='24'>{}</text>\n",
        SIZE.0,
        SIZE.1,
        title.replace('&', "&amp;").replace('<', "&lt;"),
    );
    for (index, count) in bars.iter().enumerate() {
        let tall = count * height / highest;
        let x = MARGIN + index * width / BARS;
        let (y, wide) = (MARGIN + height - tall, width / BARS - 1);
        // Writing into a string cannot fail.
        let _ = writeln!(
            svg,
            "<rect x='{x}' y='{y}' width='{wide}' height='{tall}' fill='#4477aa'>\
             <title>{count}</title></rect>"
        );
    }
    let base = MARGIN + height;
    let _ = writeln!(
        svg,
        "<path d='M{MARGIN} {MARGIN}V{base}H{}' stroke='#333' fill='none'/>\n\
         <text x='{MARGIN}' y='{}'>0 s</text>\n<text x='{}' y='{}' text-anchor='end'>{most:.1} s\
         </text>\n<text x='{}' y='{MARGIN}' text-anchor='end'>{highest}</text>\n</svg>",
        MARGIN + width,
        base + 18,
        MARGIN + width,
        base + 18,
        MARGIN - 4,
    );
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_in_a_bar() {
        let svg = histogram("<times>", &[0.0, 1.0, 2.0, 2.0]);
        assert_eq!(svg.matches("<rect").count(), BARS);
        assert!(svg.contains("<title>2</title>") && svg.contains("&lt;times>"));
    }
}
