//! What the routes of the shop take and answer, for people and for programs that try them.

use serde_json::{Value, json};

pub(crate) fn description() -> Value {
    let problem = |text: &str| {
        let content = json!({ "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } });
        json!({ "description": text, "content": content })
    };
    let view = json!({ "application/json": { "schema": { "$ref": "#/components/schemas/OrderView" } } });
    let refusals = |mut answers: Value| {
        let all = [
            ("400", "the request cannot be read"),
            ("500", "a flaw of the server, or a row that cannot be read"),
            ("503", "come again: too many requests, a partition that moves, or a state that is behind the position"),
            ("504", "the time of the request is over"),
        ];
        for (status, text) in all {
            answers.as_object_mut().into_iter().for_each(|answers| {
                answers.insert(status.to_owned(), problem(text));
            });
        }
        answers
    };
    let wait = json!({ "name": "wait", "in": "query", "description": "answer when the order is there, or decided",
        "schema": { "type": "string", "enum": ["accepted", "final"] } });
    let timeout = json!({ "name": "x-kstreams-timeout-ms", "in": "header", "schema": { "type": "integer", "format": "int64", "minimum": 1 } });
    let place = "[A-Za-z0-9._-]+:[0-9]{1,9}:[0-9]{1,18}";
    let form = json!({ "type": "string", "pattern": format!("^({place}(,{place})*)?$") });
    let position = json!({ "name": "x-kstreams-position", "in": "header", "schema": form,
        "description": "topic:partition:offset; the answer is as new as that at least" });
    let key = json!({ "name": "Idempotency-Key", "in": "header", "description": "the same key is the same order",
        "schema": { "type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$" } });
    let id = json!({ "name": "id", "in": "path", "required": true, "schema": { "type": "string", "maxLength": 256 } });
    let order = json!({ "application/json": { "schema": { "$ref": "#/components/schemas/OrderRequest" } } });
    json!({
        "openapi": "3.0.3",
        "info": { "title": "The order service", "version": "1" },
        "paths": {
            "/v1/orders": { "post": {
                "parameters": [key, wait, timeout],
                "requestBody": { "required": true, "content": order },
                "responses": refusals(json!({
                    "201": { "description": "the order, as far as it has come", "content": view },
                    "202": { "description": "the request is in the log, at the position" },
                    "404": problem("the order is not in the view in time"),
                    "409": problem("the key was used for another order"),
                    "413": problem("the body is too large"),
                })),
            } },
            "/v1/orders/{id}": { "get": {
                "parameters": [id, wait, timeout, position],
                "responses": refusals(json!({
                    "200": { "description": "the order, as far as it has come", "content": view },
                    "404": problem("there is no such order"),
                    "414": problem("the id is too long"),
                    "421": problem("another instance has sent the request here, and the order is elsewhere"),
                })),
            } },
            "/v1/events": { "get": {
                "parameters": [{ "name": "after", "in": "query", "schema": { "type": "integer", "minimum": 0 } }],
                "responses": { "200": { "description": "what has happened since" }, "400": problem("no number") },
            } },
        },
        "components": { "schemas": {
            "OrderRequest": {
                "type": "object", "additionalProperties": false,
                "required": ["customer", "product", "quantity", "cents"],
                "properties": {
                    "customer": { "type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$" },
                    "product": { "type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$" },
                    "quantity": { "type": "integer", "format": "int64" },
                    "cents": { "type": "integer", "format": "int64" },
                },
            },
            "OrderView": { "type": "object", "required": ["order", "history", "requests"] },
            "Problem": { "type": "object", "required": ["code", "status", "retriable"] },
        } },
    })
}
