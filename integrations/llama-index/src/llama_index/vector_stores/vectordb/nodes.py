"""Nodes as chunks. Their metadata are the chunk's, so that filters see them and changes made elsewhere are seen; what
else a node has is one JSON text, which the library keeps out of its index."""

from __future__ import annotations

import json
from typing import Any

from llama_index.core.schema import (
    BaseNode,
    ImageNode,
    IndexNode,
    MetadataMode,
    NodeRelationship,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores.utils import metadata_dict_to_node
from vectordb_client import Chunk, Hit

_CONTENT, _TYPE, _DOCUMENT = "_node_content", "_node_type", "ref_doc_id"
UNINDEXED = [_CONTENT]
# An index keeps a list of its nodes of these kinds, and of no others, where its store has the texts.
OF_OTHER_KINDS = {_TYPE: {"$nin": [IndexNode.class_name(), ImageNode.class_name()]}}


def to_row(node: BaseNode, *, is_embedded_by_server: bool) -> dict[str, Any]:
    """The chunk of a node. What the server is to embed is the node's content for embedding models."""
    content = node.model_dump(mode="json")
    metadata = content.pop("metadata")
    for name in ("text", "text_resource"):
        content.pop(name, None)
    content["embedding"] = None
    text = node.get_content(MetadataMode.NONE)
    own = {_CONTENT: json.dumps(content, ensure_ascii=False), _TYPE: node.class_name()}
    if node.ref_doc_id is not None:
        own[_DOCUMENT] = node.ref_doc_id
    row: dict[str, Any] = {"id": node.node_id, "text": text, "metadata": {**metadata, **own}}
    if node.embedding is not None and not is_embedded_by_server:
        row["vector"] = node.embedding
    elif (embedded := node.get_content(MetadataMode.EMBED)) != text:
        row["embed_text"] = embedded
    return row


def to_node(one: Chunk | Hit) -> BaseNode:
    """The node of a chunk, also of one that was not written by LlamaIndex. Where `include` names `document`, what is
    known of that is among the metadata."""
    stored = dict(one.metadata or {})
    content, kind = stored.pop(_CONTENT, None), stored.pop(_TYPE, None)
    document_id = stored.pop(_DOCUMENT, one.document_id)
    metadata = {**_document_metadata(one), **stored}
    if content is not None:
        node = metadata_dict_to_node({_CONTENT: content, _TYPE: kind}, text=one.text or None)
        node.metadata = metadata
        return node
    node = TextNode(id_=one.id, text=one.text or "", metadata=metadata)
    if document_id is not None:
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=document_id)
    return node


def _document_metadata(one: Chunk | Hit) -> dict[str, Any]:
    if one.document is None:
        return {}
    own = {"document_id": one.document.id, "title": one.document.title, "source": one.document.source}
    return {**{name: value for name, value in own.items() if value}, **one.document.metadata}
