//! `report.md`.

use super::charts::Charts;
use super::plot::Plot;
use super::report::CompareReport;
use super::tables::{self, ReportTable, TableCell};
use crate::escape::markdown;

/// The Markdown page, which links to the plots' files.
pub fn page(report: &CompareReport, charts: &Charts) -> String {
    let mut out =
        format!("# {}\n\n{}\n", markdown(&report.title), tables::summary(report).join(" "));
    let mut section = |heading: &str, table: Option<ReportTable>| {
        if let Some(table) = table {
            out += &format!("\n## {heading}\n\n{}", markdown_table(&table));
        }
    };
    section("Claims and measurements", tables::claims(report));
    section("All tasks", tables::by_task(report));
    section("Failed runs", tables::failures(report));
    out += &images(&charts.overall);
    for (task, plots) in report.tasks.iter().zip(&charts.tasks) {
        out += &format!("\n## {}\n\n{}\n\n", markdown(&task.name), markdown(tables::about(task)));
        let tables = [
            Some(tables::arms(task)),
            tables::against(report, task),
            tables::rates(task),
            Some(tables::costs(task)),
        ];
        let tables: Vec<String> = tables.iter().flatten().map(markdown_table).collect();
        out += &tables.join("\n");
        out += &images(plots);
    }
    out += "\n## How this was measured\n\n";
    for note in tables::notes(report) {
        out += &format!("- {}\n", markdown(&note));
    }
    out
}

fn images(plots: &[Plot]) -> String {
    let plots = plots.iter();
    plots
        .map(|plot| {
            format!("\n![{}](plots/{}.svg)\n", markdown(&plot.caption.title), plot.caption.name)
        })
        .collect()
}

/// The table in Markdown.
pub fn markdown_table(table: &ReportTable) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let head = line(table.head.iter().map(markdown).collect());
    let rule = "|---".repeat(table.head.len());
    let row = |row: &Vec<TableCell>| line(row.iter().map(|cell| markdown(cell.shown())).collect());
    let rows: String = table.rows.iter().map(row).collect();
    format!("{head}{rule}|\n{rows}")
}
