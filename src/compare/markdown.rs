//! `report.md`.

use super::charts::prefix;
use super::plot::Plot;
use super::report::Report;
use super::tables::{self, Table};
use crate::escape::markdown;

/// The Markdown page, which links to the plots' files.
pub fn page(report: &Report, plots: &[Plot]) -> String {
    let mut out =
        format!("# {}\n\n{}\n", markdown(&report.title), tables::summary(report).join(" "));
    let mut section = |heading: &str, table: Option<Table>| {
        if let Some(table) = table {
            out += &format!("\n## {heading}\n\n{}", rendered(&table));
        }
    };
    section("What is said, and what was measured", tables::claims(report));
    section("Every task", tables::by_task(report));
    section("What failed", tables::failures(report));
    out += &images(plots, |name| !name.contains("--"));
    for task in &report.tasks {
        out += &format!("\n## {}\n\n{}\n\n", markdown(&task.name), markdown(tables::about(task)));
        let tables = [
            Some(tables::arms(task)),
            tables::against(report, task),
            tables::rates(task),
            Some(tables::costs(task)),
        ];
        let tables: Vec<String> = tables.iter().flatten().map(rendered).collect();
        out += &tables.join("\n");
        let prefix = prefix(task);
        out += &images(plots, |name| name.starts_with(&prefix));
    }
    out += "\n## How it was measured\n\n";
    for note in tables::notes(report) {
        out += &format!("- {}\n", markdown(&note));
    }
    out
}

fn images(plots: &[Plot], belongs: impl Fn(&str) -> bool) -> String {
    let plots = plots.iter().filter(|plot| belongs(&plot.name));
    plots.map(|plot| format!("\n![{}](plots/{}.svg)\n", markdown(&plot.title), plot.name)).collect()
}

fn rendered(table: &Table) -> String {
    let line = |cells: &[String]| {
        let cells: Vec<String> = cells.iter().map(markdown).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let rule = "|---".repeat(table.head.len());
    let rows: String = table.rows.iter().map(|row| line(row)).collect();
    format!("{}{rule}|\n{rows}", line(&table.head))
}
