// Calls by openapi-fetch with the types of openapi-typescript, by which a field with a default must be sent.

import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { components, paths } from "./generated/schema.d.ts";

type Schemas = components["schemas"];

const client = createClient<paths>({ baseUrl: process.argv[2], headers: { Authorization: process.argv[3] } });
const path = { library_id: "typescript" };

// The answer, which is no problem.
async function ok<T>(call: Promise<{ data?: T; error?: Schemas["Problem"] }>): Promise<T> {
  const { data, error } = await call;
  assert(data !== undefined, error?.detail);
  return data;
}

const query = {
  k: 10,
  offset: 0,
  filter_mode: "auto",
  mode: "vector",
  group_size: 1,
  depth: 200,
  exact: false,
  profile: false,
  include: ["text", "metadata"],
  vectors: "array",
} satisfies Schemas["QuerySpec"];

const library = await ok(
  client.POST("/api/v1/libraries", {
    body: {
      id: "typescript",
      name: "TypeScript",
      metric: "cosine",
      index_type: "lsh",
      embedding: { provider: "hashing", model: "hashing-1024" },
    },
  }),
);
assert.equal(library.dimension, 1024);

const renamed = await ok(
  client.PATCH("/api/v1/libraries/{library_id}", { params: { path }, body: { name: "TypeScript's" } }),
);
assert.deepEqual([renamed.name, renamed.index_type], ["TypeScript's", "lsh"]);

const written = await ok(
  client.POST("/api/v1/libraries/{library_id}/chunks", {
    params: { path },
    body: {
      chunks: [
        { id: "apple", text: "An apple a day keeps the doctor away", metadata: { kind: "fruit" } },
        { id: "rose", text: "A rose is a rose is a rose", metadata: { kind: "flower" } },
        { id: "pear", text: "The pear does not fall far from the tree", metadata: { kind: "fruit" } },
      ],
      mode: "upsert",
      on_invalid: "refuse",
      create_documents: false,
      profile: false,
    },
  }),
);
assert.deepEqual(written, { ids: ["apple", "rose", "pear"], created: 3, updated: 0 });

const rose = await ok(
  client.GET("/api/v1/libraries/{library_id}/chunks/{chunk_id}", {
    params: { path: { ...path, chunk_id: "rose" }, query: { include: ["embedding"], vectors: "array" } },
  }),
);
assert(rose.embedding);

const byVector = await ok(
  client.POST("/api/v1/libraries/{library_id}/query", {
    params: { path },
    body: { ...query, vector: rose.embedding, filter: { kind: "fruit" } },
  }),
);
assert.deepEqual(byVector.results.map((result) => result.id).sort(), ["apple", "pear"]);
assert(byVector.meta.revision > 0);

const byText = await ok(
  client.POST("/api/v1/libraries/{library_id}/query", { params: { path }, body: { ...query, text: "a rose" } }),
);
assert.equal(byText.results[0]?.id, "rose");

const hybrid = await ok(
  client.POST("/api/v1/libraries/{library_id}/query", {
    params: { path },
    body: { ...query, text: "the doctor", mode: "hybrid", k: 1 },
  }),
);
assert.deepEqual(
  hybrid.results.map((result) => [result.id, result.vector_rank, result.lexical_rank]),
  [["apple", 1, 1]],
);

const page = await ok(
  client.GET("/api/v1/libraries/{library_id}/chunks", { params: { path, query: { limit: 2 } } }),
);
assert(page.next_cursor);
const rest = await ok(
  client.GET("/api/v1/libraries/{library_id}/chunks", {
    params: { path, query: { limit: 2, cursor: page.next_cursor } },
  }),
);
assert.deepEqual([...page.items, ...rest.items].map((chunk) => chunk.id), ["apple", "rose", "pear"]);
assert.equal(rest.next_cursor, null);

const document = await ok(
  client.POST("/api/v1/libraries/{library_id}/documents", {
    params: { path },
    body: { id: "proverbs", text: "A watched pot never boils. Many hands make light work.", profile: false },
  }),
);
assert.equal(document.chunk_count, 1);

const url = "https://example.com/a//b?c=d e#f%2F";
await ok(
  client.POST("/api/v1/libraries/{library_id}/chunks", {
    params: { path },
    body: { chunks: [{ id: url, text: "A page" }], mode: "upsert", on_invalid: "refuse", create_documents: false, profile: false },
  }),
);
const page_chunk = { params: { path: { ...path, chunk_id: url } } };
assert.equal((await ok(client.GET("/api/v1/libraries/{library_id}/chunks/{chunk_id}", page_chunk))).id, url);
const gone = await client.DELETE("/api/v1/libraries/{library_id}/chunks/{chunk_id}", page_chunk);
assert.equal(gone.response.status, 204);

const stats = await ok(client.GET("/api/v1/libraries/{library_id}/stats", { params: { path } }));
assert.deepEqual([stats.documents, stats.chunks, stats.reembedding], [1, 4, null]);

const deleted = await client.DELETE("/api/v1/libraries/{library_id}/documents/{document_id}", {
  params: { path: { ...path, document_id: "proverbs" } },
});
assert.equal(deleted.response.status, 204);

const { error } = await client.POST("/api/v1/libraries/{library_id}/query", {
  params: { path },
  body: { ...query, vector: [1] },
});
assert(error);
assert.deepEqual([error.status, error.code, error.errors[0]?.pointer], [400, "invalid", "/vector"]);
