//! `upstream =` of a forward: the name of a pool, a pool, or servers.

use super::pool::{check_name, whole_servers};
use super::raw::{Node, TableReader, Value};
use super::report::Report;
use super::scope::Scope;
use super::values;
use super::written_pool::WrittenPool;

/// Reads it. Without servers where it is wrong, which has been reported.
pub(super) fn read(node: &Node, scope: &mut Scope, report: &mut Report) -> WrittenPool {
    match &node.value {
        Value::String(text) if !text.is_empty() && !text.contains([':', ',']) => {
            match scope.pool(text) {
                Ok(pool) => pool.clone(),
                Err(fault) => {
                    report.consequence(&node.span, fault.of_key("upstream"));
                    WrittenPool::of(Vec::new(), scope.base_pool())
                }
            }
        }
        // A single server as a table was read before pools could be.
        Value::Table(_) if node.entry("address").is_none() => inline(node, scope, report),
        _ => {
            let servers = whole_servers("upstream", node, report);
            WrittenPool::of(servers, scope.base_pool())
        }
    }
}

/// `upstream = { servers = … }`; `name` is what `thalweg check` prints of a pool that
/// has one.
fn inline(node: &Node, scope: &Scope, report: &mut Report) -> WrittenPool {
    let mut pool = WrittenPool::of(Vec::new(), scope.base_pool());
    if let Some(mut table) = TableReader::open(node, "`upstream`", report) {
        pool.name = table.read("name", report, |node| {
            let name = values::string(node)?;
            check_name(name)?;
            scope.check_free(name)?;
            Ok(name.to_owned())
        });
        pool.read(table, &node.span, report);
    }
    pool
}
