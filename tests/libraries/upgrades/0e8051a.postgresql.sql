CREATE FUNCTION vectordb_chunk_log_delete()
 RETURNS trigger
 LANGUAGE plpgsql
AS $$-- AFTER DELETE ON vectordb_chunk REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT
BEGIN DELETE FROM vectordb_embedding WHERE chunk_id IN (SELECT id FROM old_rows);
        PERFORM id FROM vectordb_library WHERE id IN (SELECT library_key FROM (SELECT library_id AS library_key, id AS chunk_key FROM old_rows) AS r)
        ORDER BY id FOR NO KEY UPDATE;
        INSERT INTO vectordb_change (library_key, chunk_key, token)
        SELECT r.library_key, r.chunk_key, ('x' || substr(replace(gen_random_uuid()::text, '-', ''), 1, 16))::bit(64)::bigint
        FROM (SELECT library_id AS library_key, id AS chunk_key FROM old_rows) AS r JOIN vectordb_library AS library ON library.id = r.library_key
        ; RETURN NULL; END$$;
CREATE FUNCTION vectordb_chunk_log_truncate()
 RETURNS trigger
 LANGUAGE plpgsql
AS $$-- AFTER TRUNCATE ON vectordb_chunk FOR EACH STATEMENT
BEGIN 
        DELETE FROM vectordb_change;
        INSERT INTO vectordb_change (library_key, chunk_key, token) SELECT id, 0, ('x' || substr(replace(gen_random_uuid()::text, '-', ''), 1, 16))::bit(64)::bigint FROM vectordb_library; RETURN NULL; END$$;
CREATE FUNCTION vectordb_chunk_log_update()
 RETURNS trigger
 LANGUAGE plpgsql
AS $$-- AFTER UPDATE ON vectordb_chunk REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT
BEGIN 
        PERFORM id FROM vectordb_library WHERE id IN (SELECT library_key FROM (SELECT library_id AS library_key, id AS chunk_key FROM new_rows UNION SELECT library_id AS library_key, id AS chunk_key FROM old_rows) AS r)
        ORDER BY id FOR NO KEY UPDATE;
        INSERT INTO vectordb_change (library_key, chunk_key, token)
        SELECT r.library_key, r.chunk_key, ('x' || substr(replace(gen_random_uuid()::text, '-', ''), 1, 16))::bit(64)::bigint
        FROM (SELECT library_id AS library_key, id AS chunk_key FROM new_rows UNION SELECT library_id AS library_key, id AS chunk_key FROM old_rows) AS r JOIN vectordb_library AS library ON library.id = r.library_key
        ;
        IF EXISTS (SELECT FROM vectordb_reembedding WHERE library_id IN (SELECT library_id FROM new_rows)) THEN
            DELETE FROM vectordb_embedding AS embedding USING new_rows AS n JOIN old_rows AS o ON o.id = n.id
            JOIN vectordb_library AS library ON library.id = n.library_id
            WHERE embedding.chunk_id = n.id AND embedding.generation <> library.generation
              AND (n.text <> o.text OR n.library_id <> o.library_id);
        END IF; RETURN NULL; END$$;
CREATE FUNCTION vectordb_document_delete()
 RETURNS trigger
 LANGUAGE plpgsql
AS $$-- AFTER DELETE ON vectordb_document REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT
BEGIN DELETE FROM vectordb_chunk WHERE document_id IN (SELECT id FROM old_rows); RETURN NULL; END$$;
CREATE FUNCTION vectordb_embedding_log_delete()
 RETURNS trigger
 LANGUAGE plpgsql
AS $$-- AFTER DELETE ON vectordb_embedding REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT
BEGIN 
        PERFORM id FROM vectordb_library WHERE id IN (SELECT library_key FROM (SELECT chunk.library_id AS library_key, chunk.id AS chunk_key, e.generation
        FROM old_rows AS e JOIN vectordb_chunk AS chunk ON chunk.id = e.chunk_id) AS r)
        ORDER BY id FOR NO KEY UPDATE;
        INSERT INTO vectordb_change (library_key, chunk_key, token)
        SELECT r.library_key, r.chunk_key, ('x' || substr(replace(gen_random_uuid()::text, '-', ''), 1, 16))::bit(64)::bigint
        FROM (SELECT chunk.library_id AS library_key, chunk.id AS chunk_key, e.generation
        FROM old_rows AS e JOIN vectordb_chunk AS chunk ON chunk.id = e.chunk_id) AS r JOIN vectordb_library AS library ON library.id = r.library_key
        WHERE library.generation = r.generation; RETURN NULL; END$$;
CREATE FUNCTION vectordb_embedding_log_insert()
 RETURNS trigger
 LANGUAGE plpgsql
AS $$-- AFTER INSERT ON vectordb_embedding REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT
BEGIN 
        IF EXISTS (
            SELECT FROM new_rows n JOIN vectordb_chunk AS chunk ON chunk.id = n.chunk_id
            JOIN vectordb_library AS library ON library.id = chunk.library_id
            WHERE library.generation = n.generation AND octet_length(n.vector) <> 4 * library.dimension
        ) THEN RAISE EXCEPTION 'embedding.vector must have 4 x library.dimension bytes' USING ERRCODE = '23514';
        END IF;
        PERFORM id FROM vectordb_library WHERE id IN (SELECT library_key FROM (SELECT chunk.library_id AS library_key, chunk.id AS chunk_key, e.generation
        FROM new_rows AS e JOIN vectordb_chunk AS chunk ON chunk.id = e.chunk_id) AS r)
        ORDER BY id FOR NO KEY UPDATE;
        INSERT INTO vectordb_change (library_key, chunk_key, token)
        SELECT r.library_key, r.chunk_key, ('x' || substr(replace(gen_random_uuid()::text, '-', ''), 1, 16))::bit(64)::bigint
        FROM (SELECT chunk.library_id AS library_key, chunk.id AS chunk_key, e.generation
        FROM new_rows AS e JOIN vectordb_chunk AS chunk ON chunk.id = e.chunk_id) AS r JOIN vectordb_library AS library ON library.id = r.library_key
        WHERE library.generation = r.generation; RETURN NULL; END$$;
CREATE FUNCTION vectordb_embedding_log_truncate()
 RETURNS trigger
 LANGUAGE plpgsql
AS $$-- AFTER TRUNCATE ON vectordb_embedding FOR EACH STATEMENT
BEGIN 
        DELETE FROM vectordb_change;
        INSERT INTO vectordb_change (library_key, chunk_key, token) SELECT id, 0, ('x' || substr(replace(gen_random_uuid()::text, '-', ''), 1, 16))::bit(64)::bigint FROM vectordb_library; RETURN NULL; END$$;
CREATE FUNCTION vectordb_embedding_log_update()
 RETURNS trigger
 LANGUAGE plpgsql
AS $$-- AFTER UPDATE ON vectordb_embedding REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT
BEGIN 
        IF EXISTS (
            SELECT FROM new_rows n JOIN vectordb_chunk AS chunk ON chunk.id = n.chunk_id
            JOIN vectordb_library AS library ON library.id = chunk.library_id
            WHERE library.generation = n.generation AND octet_length(n.vector) <> 4 * library.dimension
        ) THEN RAISE EXCEPTION 'embedding.vector must have 4 x library.dimension bytes' USING ERRCODE = '23514';
        END IF;
        PERFORM id FROM vectordb_library WHERE id IN (SELECT library_key FROM (SELECT chunk.library_id AS library_key, chunk.id AS chunk_key, e.generation
        FROM new_rows AS e JOIN vectordb_chunk AS chunk ON chunk.id = e.chunk_id UNION SELECT chunk.library_id AS library_key, chunk.id AS chunk_key, e.generation
        FROM old_rows AS e JOIN vectordb_chunk AS chunk ON chunk.id = e.chunk_id) AS r)
        ORDER BY id FOR NO KEY UPDATE;
        INSERT INTO vectordb_change (library_key, chunk_key, token)
        SELECT r.library_key, r.chunk_key, ('x' || substr(replace(gen_random_uuid()::text, '-', ''), 1, 16))::bit(64)::bigint
        FROM (SELECT chunk.library_id AS library_key, chunk.id AS chunk_key, e.generation
        FROM new_rows AS e JOIN vectordb_chunk AS chunk ON chunk.id = e.chunk_id UNION SELECT chunk.library_id AS library_key, chunk.id AS chunk_key, e.generation
        FROM old_rows AS e JOIN vectordb_chunk AS chunk ON chunk.id = e.chunk_id) AS r JOIN vectordb_library AS library ON library.id = r.library_key
        WHERE library.generation = r.generation; RETURN NULL; END$$;
CREATE FUNCTION vectordb_library_delete()
 RETURNS trigger
 LANGUAGE plpgsql
AS $$-- AFTER DELETE ON vectordb_library REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT
BEGIN DELETE FROM vectordb_chunk WHERE library_id IN (SELECT id FROM old_rows);
        DELETE FROM vectordb_document WHERE library_id IN (SELECT id FROM old_rows);
        DELETE FROM vectordb_change WHERE library_key IN (SELECT id FROM old_rows);
        DELETE FROM vectordb_reembedding WHERE library_id IN (SELECT id FROM old_rows); RETURN NULL; END$$;
CREATE FUNCTION vectordb_library_log_switch()
 RETURNS trigger
 LANGUAGE plpgsql
AS $$-- AFTER UPDATE OF generation ON vectordb_library FOR EACH ROW WHEN (OLD.generation <> NEW.generation)
BEGIN INSERT INTO vectordb_change (library_key, chunk_key, token) VALUES (NEW.id, 0, ('x' || substr(replace(gen_random_uuid()::text, '-', ''), 1, 16))::bit(64)::bigint); RETURN NULL; END$$;
CREATE TABLE django_migrations (
    id bigint NOT NULL,
    app character varying(255) NOT NULL,
    name character varying(255) NOT NULL,
    applied timestamp with time zone NOT NULL
);
ALTER TABLE django_migrations ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME django_migrations_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE vectordb_change (
    seq bigint NOT NULL,
    library_key bigint NOT NULL,
    chunk_key bigint NOT NULL,
    token bigint NOT NULL
);
ALTER TABLE vectordb_change ALTER COLUMN seq ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME vectordb_change_seq_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE vectordb_chunk (
    id bigint NOT NULL,
    library_id bigint NOT NULL,
    document_id bigint,
    public_id character varying(128) NOT NULL,
    text text NOT NULL,
    metadata json NOT NULL,
    "position" integer,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    CONSTRAINT vectordb_chunk_position_check CHECK (("position" >= 0))
);
ALTER TABLE vectordb_chunk ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME vectordb_chunk_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE vectordb_document (
    id bigint NOT NULL,
    library_id bigint NOT NULL,
    public_id character varying(128) NOT NULL,
    title text NOT NULL,
    source text NOT NULL,
    metadata json NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL
);
ALTER TABLE vectordb_document ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME vectordb_document_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE vectordb_embedding (
    chunk_id bigint NOT NULL,
    generation integer NOT NULL,
    vector bytea NOT NULL,
    CONSTRAINT vectordb_embedding_float32 CHECK (((length(vector) > 0) AND ((length(vector) % 4) = 0))),
    CONSTRAINT vectordb_embedding_generation_check CHECK ((generation >= 0))
);
CREATE TABLE vectordb_library (
    id bigint NOT NULL,
    public_id character varying(128) NOT NULL,
    uid character varying(32) NOT NULL,
    name character varying(200) NOT NULL,
    description text NOT NULL,
    dimension integer,
    metric character varying(16) NOT NULL,
    index_type character varying(32) NOT NULL,
    index_params json NOT NULL,
    embedding_provider character varying(64) NOT NULL,
    embedding_model character varying(500) NOT NULL,
    metadata json NOT NULL,
    generation integer NOT NULL,
    manifest bigint NOT NULL,
    rebuild bigint NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    CONSTRAINT vectordb_library_dimension CHECK (((dimension IS NULL) OR (dimension >= 1))),
    CONSTRAINT vectordb_library_dimension_check CHECK ((dimension >= 0)),
    CONSTRAINT vectordb_library_generation_check CHECK ((generation >= 0)),
    CONSTRAINT vectordb_library_metric CHECK (((metric)::text = ANY ((ARRAY['cosine'::character varying, 'dot'::character varying, 'euclidean'::character varying])::text[]))),
    CONSTRAINT vectordb_library_named CHECK (((NOT ((name)::text = ''::text)) AND (NOT ((public_id)::text = ''::text))))
);
ALTER TABLE vectordb_library ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME vectordb_library_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE vectordb_reembedding (
    library_id bigint NOT NULL,
    generation integer NOT NULL,
    provider character varying(64) NOT NULL,
    model character varying(500) NOT NULL,
    dimension integer,
    state character varying(16) NOT NULL,
    error text NOT NULL,
    retry_at timestamp with time zone,
    created_at timestamp with time zone NOT NULL,
    CONSTRAINT vectordb_reembedding_dimension_check CHECK ((dimension >= 0)),
    CONSTRAINT vectordb_reembedding_generation_check CHECK ((generation >= 0))
);
INSERT INTO django_migrations VALUES (18, 'libraries', '0001_initial', '2026-11-29 16:07:22.054415+00');
INSERT INTO django_migrations VALUES (19, 'libraries', '0002_index_files', '2026-11-29 16:07:22.055291+00');
INSERT INTO django_migrations VALUES (20, 'libraries', '0003_embedding_model', '2026-11-29 16:07:22.057006+00');
INSERT INTO django_migrations VALUES (21, 'libraries', '0004_reembedding', '2026-11-29 16:07:22.057433+00');
INSERT INTO django_migrations VALUES (22, 'libraries', '0005_table_prefix', '2026-11-29 16:07:22.057799+00');
INSERT INTO django_migrations VALUES (24, 'libraries', '0001_squashed_0005_table_prefix', '2026-11-29 16:07:22.067304+00');
INSERT INTO vectordb_change VALUES (1, 1, 2, 4302365356347180555);
INSERT INTO vectordb_change VALUES (2, 1, 1, -5456883246309029575);
INSERT INTO vectordb_change VALUES (3, 1, 5, 4271013799904625373);
INSERT INTO vectordb_change VALUES (4, 1, 4, 4308939061230128574);
INSERT INTO vectordb_change VALUES (5, 1, 3, 2031626982119851542);
INSERT INTO vectordb_change VALUES (6, 1, 4, -41111881105061260);
INSERT INTO vectordb_change VALUES (7, 1, 5, -4164672184403147034);
INSERT INTO vectordb_change VALUES (8, 1, 5, 8686195136961399292);
INSERT INTO vectordb_chunk VALUES (1, 1, 1, 'call', 'Call me Ishmael.', '{"n":1}', 0, '2026-11-29 16:07:22.137392+00', '2026-11-29 16:07:22.137392+00');
INSERT INTO vectordb_chunk VALUES (2, 1, 1, 'whale', 'The white whale.', '{"n":2}', 1, '2026-11-29 16:07:22.137392+00', '2026-11-29 16:07:22.137392+00');
INSERT INTO vectordb_chunk VALUES (3, 1, NULL, 'alone', 'It was the best of times.', '{}', NULL, '2026-11-29 16:07:22.149218+00', '2026-11-29 16:07:22.149218+00');
INSERT INTO vectordb_chunk VALUES (5, 1, NULL, 'changed', 'Second.', '{}', NULL, '2026-11-29 16:07:22.149218+00', '2026-11-29 16:07:22.162743+00');
INSERT INTO vectordb_document VALUES (1, 1, 'whales', 'Moby-Dick', '', '{}', '2026-11-29 16:07:22.136377+00', '2026-11-29 16:07:22.136598+00');
INSERT INTO vectordb_embedding VALUES (1, 1, '\x0000803f0000000000000000');
INSERT INTO vectordb_embedding VALUES (2, 1, '\xcdcc4c3f9a99193f00000000');
INSERT INTO vectordb_embedding VALUES (3, 1, '\x000000000000803f00000000');
INSERT INTO vectordb_embedding VALUES (5, 1, '\x00000000000000000000803f');
INSERT INTO vectordb_library VALUES (1, 'books', '9220b6aa9a3391b7c4a955dcf758c752', 'Books', '', 3, 'cosine', 'auto', '{}', '', '', '{"shelf":1e+300}', 1, 0, 0, '2026-11-29 16:07:22.121617+00', '2026-11-29 16:07:22.121973+00');
INSERT INTO vectordb_library VALUES (2, 'empty', '8ed5513a96ad21f96902423a19a6f19d', 'Nothing yet', '', NULL, 'cosine', 'auto', '{}', '', '', '{}', 1, 0, 0, '2026-11-29 16:07:22.129247+00', '2026-11-29 16:07:22.129509+00');
INSERT INTO vectordb_reembedding VALUES (2, 2, 'hashing', 'hashing-64', NULL, 'waiting', '', NULL, '2026-11-29 16:07:22.170467+00');
SELECT pg_catalog.setval('django_migrations_id_seq', 24, true);
SELECT pg_catalog.setval('vectordb_change_seq_seq', 8, true);
SELECT pg_catalog.setval('vectordb_chunk_id_seq', 5, true);
SELECT pg_catalog.setval('vectordb_document_id_seq', 1, true);
SELECT pg_catalog.setval('vectordb_library_id_seq', 2, true);
ALTER TABLE ONLY django_migrations
    ADD CONSTRAINT django_migrations_pkey PRIMARY KEY (id);
ALTER TABLE ONLY vectordb_change
    ADD CONSTRAINT vectordb_change_pkey PRIMARY KEY (seq);
ALTER TABLE ONLY vectordb_chunk
    ADD CONSTRAINT vectordb_chunk_id_unique UNIQUE (library_id, public_id);
ALTER TABLE ONLY vectordb_chunk
    ADD CONSTRAINT vectordb_chunk_pkey PRIMARY KEY (id);
ALTER TABLE ONLY vectordb_document
    ADD CONSTRAINT vectordb_document_id_unique UNIQUE (library_id, public_id);
ALTER TABLE ONLY vectordb_document
    ADD CONSTRAINT vectordb_document_pkey PRIMARY KEY (id);
ALTER TABLE ONLY vectordb_embedding
    ADD CONSTRAINT vectordb_embedding_pkey PRIMARY KEY (chunk_id, generation);
ALTER TABLE ONLY vectordb_library
    ADD CONSTRAINT vectordb_library_pkey PRIMARY KEY (id);
ALTER TABLE ONLY vectordb_library
    ADD CONSTRAINT vectordb_library_public_id_key UNIQUE (public_id);
ALTER TABLE ONLY vectordb_library
    ADD CONSTRAINT vectordb_library_uid_key UNIQUE (uid);
ALTER TABLE ONLY vectordb_reembedding
    ADD CONSTRAINT vectordb_reembedding_pkey PRIMARY KEY (library_id);
CREATE INDEX vectordb_change_of_library ON vectordb_change USING btree (library_key, seq);
CREATE INDEX vectordb_chunk_of_document ON vectordb_chunk USING btree (document_id, "position");
CREATE INDEX vectordb_chunk_order ON vectordb_chunk USING btree (library_id, id);
CREATE INDEX vectordb_document_order ON vectordb_document USING btree (library_id, id);
CREATE INDEX vectordb_library_public_id_54b43d81_like ON vectordb_library USING btree (public_id varchar_pattern_ops);
CREATE INDEX vectordb_library_uid_4362f9f9_like ON vectordb_library USING btree (uid varchar_pattern_ops);
CREATE TRIGGER vectordb_chunk_log_delete AFTER DELETE ON vectordb_chunk REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION vectordb_chunk_log_delete();
CREATE TRIGGER vectordb_chunk_log_truncate AFTER TRUNCATE ON vectordb_chunk FOR EACH STATEMENT EXECUTE FUNCTION vectordb_chunk_log_truncate();
CREATE TRIGGER vectordb_chunk_log_update AFTER UPDATE ON vectordb_chunk REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION vectordb_chunk_log_update();
CREATE TRIGGER vectordb_document_delete AFTER DELETE ON vectordb_document REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION vectordb_document_delete();
CREATE TRIGGER vectordb_embedding_log_delete AFTER DELETE ON vectordb_embedding REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION vectordb_embedding_log_delete();
CREATE TRIGGER vectordb_embedding_log_insert AFTER INSERT ON vectordb_embedding REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION vectordb_embedding_log_insert();
CREATE TRIGGER vectordb_embedding_log_truncate AFTER TRUNCATE ON vectordb_embedding FOR EACH STATEMENT EXECUTE FUNCTION vectordb_embedding_log_truncate();
CREATE TRIGGER vectordb_embedding_log_update AFTER UPDATE ON vectordb_embedding REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION vectordb_embedding_log_update();
CREATE TRIGGER vectordb_library_delete AFTER DELETE ON vectordb_library REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION vectordb_library_delete();
CREATE TRIGGER vectordb_library_log_switch AFTER UPDATE OF generation ON vectordb_library FOR EACH ROW WHEN ((old.generation <> new.generation)) EXECUTE FUNCTION vectordb_library_log_switch();
ALTER TABLE ONLY vectordb_chunk
    ADD CONSTRAINT vectordb_chunk_document_id_a3848bda_fk_vectordb_document_id FOREIGN KEY (document_id) REFERENCES vectordb_document(id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY vectordb_chunk
    ADD CONSTRAINT vectordb_chunk_library_id_088f0f13_fk_vectordb_library_id FOREIGN KEY (library_id) REFERENCES vectordb_library(id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY vectordb_document
    ADD CONSTRAINT vectordb_document_library_id_568c1cf2_fk_vectordb_library_id FOREIGN KEY (library_id) REFERENCES vectordb_library(id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY vectordb_embedding
    ADD CONSTRAINT vectordb_embedding_chunk_id_9c8d2efb_fk_vectordb_chunk_id FOREIGN KEY (chunk_id) REFERENCES vectordb_chunk(id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY vectordb_reembedding
    ADD CONSTRAINT vectordb_reembedding_library_id_d9fe0b8c_fk_vectordb_library_id FOREIGN KEY (library_id) REFERENCES vectordb_library(id) DEFERRABLE INITIALLY DEFERRED;
