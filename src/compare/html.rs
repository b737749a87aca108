//! `report.html`: one file that loads nothing from the network.

use super::charts::Charts;
use super::plot::{Plot, escaped};
use super::report::{CompareReport, TaskReport};
use super::tables::{self, ReportTable};

const STYLE: &str = "
:root{color-scheme:light dark;--ground:#fff;--ink:#1a1a1a;--dim:#595959;--line:#d9dce0;--soft:#f4f6f8;--good:#00694d;--bad:#a03c00}
@media(prefers-color-scheme:dark){:root{--ground:#14171a;--ink:#e6e6e6;--dim:#a3a9b0;--line:#343a41;--soft:#1c2126;--good:#3ecf9f;--bad:#ff9a5c}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:1080px;margin:0 auto;padding:1.2rem 1rem 3rem}
h1{font-size:1.7rem;line-height:1.2;margin:.4rem 0}
h2{font-size:1.25rem;margin:2.2rem 0 .5rem;padding-top:.8rem;border-top:1px solid var(--line)}
p{margin:.5rem 0;max-width:72ch}
.dim,figcaption,footer{color:var(--dim)}
.scroll{overflow-x:auto;margin:.8rem 0}
table{border-collapse:collapse;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{padding:.4rem .8rem .4rem 0;text-align:left;border-bottom:1px solid var(--line);vertical-align:top}
thead th{color:var(--dim);font-weight:600;white-space:nowrap}
tbody th{font-weight:600;position:sticky;left:0;background:var(--ground);max-width:11rem}
.numbers td{white-space:nowrap}
.words th,.words td{min-width:9rem}
.holds{color:var(--good)}.fails{color:var(--bad)}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:1rem;margin:1rem 0}
figure{margin:0;padding:.8rem;background:var(--soft);border-radius:8px;max-width:520px;min-width:0}
figcaption{font-size:.92rem;margin-bottom:.5rem;font-weight:600}
svg{display:block;width:100%;height:auto}
nav a{margin-right:1rem}
a{color:inherit}
li{margin:.3rem 0;max-width:72ch}
@media print{figure{break-inside:avoid}}
";

/// The HTML page, with its plots inline.
pub fn page(report: &CompareReport, charts: &Charts) -> String {
    let mut out = opening(&report.title, &tables::summary(report).join(" "));
    if report.tasks.len() > 1 {
        let links = report
            .tasks
            .iter()
            .enumerate()
            .map(|(i, task)| format!("<a href=\"#task-{i}\">{}</a>", escaped(&task.name)));
        out += &format!("<nav>{}</nav>\n", links.collect::<Vec<_>>().join(" "));
    }
    let mut section = |heading: &str, class: &str, table: Option<ReportTable>| {
        if let Some(table) = table {
            out += &format!("<h2>{heading}</h2>\n{}", html_table(&table, class));
        }
    };
    section("Claims and measurements", "words", tables::claims(report));
    section("All tasks", "numbers", tables::by_task(report));
    section("Failed runs", "words", tables::failures(report));
    out += &figures(&charts.overall);
    for (i, (task, plots)) in report.tasks.iter().zip(&charts.tasks).enumerate() {
        out += &task_section(report, i, task, plots);
    }
    out += "<h2>How this was measured</h2>\n<ul>\n";
    for note in tables::notes(report) {
        out += &format!("<li>{}</li>\n", escaped(&note));
    }
    out + &format!(
        "</ul>\n<footer><p>Measured with bitfit {}. The numbers are in report.json.</p></footer>\n</main>\n</body>\n</html>\n",
        report.version
    )
}

/// The beginning of a page: its head, its heading and the paragraph below that.
pub fn opening(title: &str, summary: &str) -> String {
    let (title, summary) = (escaped(title), escaped(summary));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n<p>{summary}</p>\n"
    )
}

/// The section of the task with the index `i`.
fn task_section(report: &CompareReport, i: usize, task: &TaskReport, plots: &[Plot]) -> String {
    let (name, about) = (escaped(&task.name), escaped(&tables::about(task)));
    let mut out = format!("<h2 id=\"task-{i}\">{name}</h2>\n<p class=\"dim\">{about}</p>\n");
    let tables = [
        Some(tables::arms(task)),
        tables::against(report, task),
        tables::rates(task),
        Some(tables::costs(task)),
    ];
    out.extend(tables.iter().flatten().map(|table| html_table(table, "numbers")));
    out + &figures(plots)
}

fn figures(plots: &[Plot]) -> String {
    let figures: String = plots
        .iter()
        .map(|plot| {
            let title = escaped(&plot.caption.title);
            format!("<figure>\n<figcaption>{title}</figcaption>\n{}\n</figure>\n", plot.inline())
        })
        .collect();
    if figures.is_empty() { figures } else { format!("<div class=\"plots\">\n{figures}</div>\n") }
}

/// The table in HTML; `class` is `numbers` or `words`, by what its cells hold.
pub fn html_table(table: &ReportTable, class: &str) -> String {
    let head: String =
        table.head.iter().map(|cell| format!("<th scope=\"col\">{}</th>", escaped(cell))).collect();
    let mut out = format!(
        "<div class=\"scroll\" tabindex=\"0\"><table class=\"{class}\">\n<thead><tr>{head}</tr></thead>\n<tbody>\n"
    );
    for row in &table.rows {
        out += "<tr>";
        for (i, cell) in row.iter().enumerate() {
            let text = escaped(&cell.shown());
            out += &match (i, cell.holds) {
                (0, _) => format!("<th scope=\"row\">{text}</th>"),
                (_, Some(true)) => format!("<td class=\"holds\">{text}</td>"),
                (_, Some(false)) => format!("<td class=\"fails\">{text}</td>"),
                (_, None) => format!("<td>{text}</td>"),
            };
        }
        out += "</tr>\n";
    }
    out + "</tbody>\n</table></div>\n"
}
