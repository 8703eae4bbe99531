"""Every root field with arguments that schemathesis makes up, good ones and odd ones: whatever comes, the gateway
answers as GraphQL over HTTP says, blames the client only for what is the client's, and says nothing of its inside."""

import os
import re

import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.graphql import nodes

# It knows the other scalars of the schema.
json = st.text().map(nodes.String) | st.booleans().map(nodes.Boolean) | st.integers().map(nodes.Int)
schemathesis.graphql.scalar("JSON", json)

schema = schemathesis.graphql.from_url(f"{os.environ['BASE_URL']}/graphql")
schema.config.generation.update(modes=[GenerationMode.POSITIVE])

# What a client may be told; INTERNAL is not among them.
CODES = {"NOT_FOUND", "BAD_USER_INPUT", "CONFLICT", "UNAVAILABLE", "TIMEOUT"}
INSIDE = re.compile(
    r"\bselect\b|\binsert\b|\bupdate\b.*\bset\b|diesel|postgres|tokio|async.graphql|qdrant|panick|\.rs\b|stack|backtrace",
    re.IGNORECASE,
)


@schema.parametrize()
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_one_of_graphql(case):
    response = case.call(headers={"accept": "application/graphql-response+json"})
    assert response.status_code in (200, 400), response.text
    assert response.headers["content-type"] == ["application/graphql-response+json; charset=utf-8"]
    answer = response.json()
    assert set(answer) <= {"data", "errors", "extensions"} and answer, answer
    assert ("data" in answer) == (response.status_code == 200), answer
    for error in answer.get("errors", []):
        assert error["extensions"]["code"] in CODES, error
        # The client's own words may come back; they are in the request.
        said = error["message"]
        leak = INSIDE.search(said)
        assert leak is None or leak.group() in str(case.body), error
