"""Every operation of the API that the client calls, by the name that the schema gives it."""

from vectordb_client._core import Route

_API = "/api/v1"
_LIBRARIES = f"{_API}/libraries"
_LIBRARY = f"{_LIBRARIES}/{{library_id}}"
_DOCUMENTS = f"{_LIBRARY}/documents"
_CHUNKS = f"{_LIBRARY}/chunks"
_KEY = f"{_API}/keys/{{key_id}}"

health = Route("GET", "/health")
ready = Route("GET", "/ready")
metrics = Route("GET", "/metrics")
mcp = Route("POST", "/mcp", is_idempotent=False)

list_libraries = Route("GET", _LIBRARIES)
create_library = Route("POST", _LIBRARIES, is_idempotent=False)
get_library = Route("GET", _LIBRARY)
update_library = Route("PATCH", _LIBRARY)
delete_library = Route("DELETE", _LIBRARY)
library_stats = Route("GET", f"{_LIBRARY}/stats")
reindex = Route("POST", f"{_LIBRARY}/reindex", is_idempotent=False)
get_reembedding = Route("GET", f"{_LIBRARY}/reembed")
reembed = Route("POST", f"{_LIBRARY}/reembed", is_idempotent=False)
cancel_reembedding = Route("DELETE", f"{_LIBRARY}/reembed")
export_library = Route("GET", f"{_LIBRARY}/export")
import_rows = Route("POST", f"{_LIBRARY}/import", is_idempotent=False)

query = Route("POST", f"{_LIBRARY}/query")
query_batch = Route("POST", f"{_LIBRARY}/query/batch")

write_chunks = Route("POST", _CHUNKS, is_idempotent=False)
get_chunk = Route("GET", f"{_CHUNKS}/{{chunk_id}}")
update_chunk = Route("PATCH", f"{_CHUNKS}/{{chunk_id}}")
delete_chunk = Route("DELETE", f"{_CHUNKS}/{{chunk_id}}")
get_chunks = Route("POST", f"{_CHUNKS}/get")
delete_chunks = Route("POST", f"{_CHUNKS}/delete", is_idempotent=False)
update_chunks = Route("POST", f"{_CHUNKS}/update", is_idempotent=False)
count_chunks = Route("POST", f"{_CHUNKS}/count")
list_chunks_in_order = Route("POST", f"{_CHUNKS}/list")
summarize_fields = Route("POST", f"{_CHUNKS}/fields")
count_values = Route("POST", f"{_CHUNKS}/facets")

list_documents = Route("GET", _DOCUMENTS)
create_document = Route("POST", _DOCUMENTS, is_idempotent=False)
create_documents = Route("POST", f"{_DOCUMENTS}/batch", is_idempotent=False)
get_document = Route("GET", f"{_DOCUMENTS}/{{document_id}}")
put_document = Route("PUT", f"{_DOCUMENTS}/{{document_id}}")
update_document = Route("PATCH", f"{_DOCUMENTS}/{{document_id}}")
delete_document = Route("DELETE", f"{_DOCUMENTS}/{{document_id}}")

list_keys = Route("GET", f"{_API}/keys")
create_key = Route("POST", f"{_API}/keys", is_idempotent=False)
get_key = Route("GET", _KEY)
update_key = Route("PATCH", _KEY)
revoke_key = Route("DELETE", _KEY)
rotate_key = Route("POST", f"{_KEY}/rotate", is_idempotent=False)
create_search_token = Route("POST", f"{_KEY}/search-token", is_idempotent=False)
list_audit = Route("GET", f"{_API}/audit")

list_jobs = Route("GET", f"{_API}/jobs")
get_job = Route("GET", f"{_API}/jobs/{{job_id}}")
cancel_job = Route("DELETE", f"{_API}/jobs/{{job_id}}")

list_backups = Route("GET", f"{_API}/backups")
create_backup = Route("POST", f"{_API}/backups", is_idempotent=False)
get_backup = Route("GET", f"{_API}/backups/{{backup_id}}")
delete_backup = Route("DELETE", f"{_API}/backups/{{backup_id}}")
