//! The description of the routes: OpenAPI 3.1, from their table.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::problem::ProblemCode;
use super::routes::{Param, ParamKind, Place, ROUTES, Route};

/// Of a server whose stores are these.
pub(super) fn description(stores: &[&str]) -> Value {
    let paths: Map<String, Value> =
        ROUTES.iter().map(|route| (route.path.to_owned(), json!({ "get": operation(route, stores) }))).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Interactive queries",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The state of a stream application. Any instance answers for any key.",
        },
        "paths": paths,
        "components": {
            "schemas": { "Problem": problem() },
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer" } },
        },
    })
}

fn operation(route: &Route, stores: &[&str]) -> Value {
    let mut answers: BTreeMap<String, Value> = BTreeMap::new();
    answers.insert("200".to_owned(), json!({ "description": "The answer.", "content": { "application/json": {} } }));
    let mut by_status: BTreeMap<u16, Vec<ProblemCode>> = BTreeMap::new();
    for code in route.problems() {
        by_status.entry(code.status().as_u16()).or_default().push(code);
    }
    for (status, codes) in by_status {
        let names: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
        let schema = json!({ "$ref": "#/components/schemas/Problem" });
        let content = json!({ "application/problem+json": { "schema": schema } });
        answers.insert(status.to_string(), json!({ "description": names.join(", "), "content": content }));
    }
    let params: Vec<Value> = route.params().map(|param| parameter(param, stores)).collect();
    json!({
        "operationId": format!("{:?}", route.endpoint),
        "summary": route.summary,
        "parameters": params,
        "responses": answers,
    })
}

fn parameter(param: &Param, stores: &[&str]) -> Value {
    let place = match param.place {
        Place::Path => "path",
        Place::Query | Place::Required => "query",
        Place::Header => "header",
    };
    let schema = match param.kind {
        ParamKind::Text if param.name == "store" && !stores.is_empty() => json!({ "type": "string", "enum": stores }),
        ParamKind::Text => json!({ "type": "string" }),
        ParamKind::Form(pattern) => json!({ "type": "string", "pattern": pattern }),
        ParamKind::AtLeast(least) => json!({ "type": "integer", "format": "int64", "minimum": least }),
        ParamKind::Integer => json!({ "type": "integer", "format": "int64" }),
        ParamKind::Flag => json!({ "type": "boolean" }),
        ParamKind::Word(words) => json!({ "type": "string", "enum": words }),
    };
    json!({
        "name": param.name,
        "in": place,
        "required": matches!(param.place, Place::Path | Place::Required),
        "description": param.about,
        "schema": schema,
    })
}

fn problem() -> Value {
    let codes: Vec<&str> = ProblemCode::ALL.iter().map(|code| code.as_str()).collect();
    json!({
        "type": "object",
        "required": ["type", "title", "status", "code", "detail", "retriable"],
        "properties": {
            "type": { "type": "string" },
            "title": { "type": "string" },
            "status": { "type": "integer" },
            "code": { "type": "string", "enum": codes },
            "detail": { "type": "string" },
            "retriable": { "type": "boolean" },
            "missing": { "type": "array", "items": { "type": "integer" } },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_in_a_path_is_a_parameter_and_no_route_is_there_twice() {
        let description = description(&["counts"]);
        let paths = description["paths"].as_object().unwrap();
        assert_eq!(paths.len(), ROUTES.len());
        for route in ROUTES {
            let in_path: Vec<&str> = route.path.split('/').filter_map(|part| part.strip_prefix('{')).collect();
            let named: Vec<String> =
                route.params().filter(|p| p.place == Place::Path).map(|p| format!("{}}}", p.name)).collect();
            assert_eq!(in_path, named, "{}", route.path);
        }
    }
}
