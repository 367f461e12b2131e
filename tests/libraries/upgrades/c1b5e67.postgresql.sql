CREATE FUNCTION chunk_log_delete() RETURNS trigger
    LANGUAGE plpgsql
    AS $$ BEGIN DELETE FROM embedding WHERE chunk_id IN (SELECT id FROM old_rows);
        PERFORM id FROM library WHERE id IN (SELECT library_key FROM (SELECT library_id AS library_key, id AS chunk_key FROM old_rows) AS r) ORDER BY id FOR NO KEY UPDATE;
        INSERT INTO change (library_key, chunk_key, token)
        SELECT r.library_key, r.chunk_key, ('x' || substr(replace(gen_random_uuid()::text, '-', ''), 1, 16))::bit(64)::bigint FROM (SELECT library_id AS library_key, id AS chunk_key FROM old_rows) AS r JOIN library ON library.id = r.library_key
        ; RETURN NULL; END $$;
CREATE FUNCTION chunk_log_truncate() RETURNS trigger
    LANGUAGE plpgsql
    AS $$ BEGIN
        DELETE FROM change;
        INSERT INTO change (library_key, chunk_key, token) SELECT id, 0, ('x' || substr(replace(gen_random_uuid()::text, '-', ''), 1, 16))::bit(64)::bigint FROM library; RETURN NULL; END $$;
CREATE FUNCTION chunk_log_update() RETURNS trigger
    LANGUAGE plpgsql
    AS $$ BEGIN
        PERFORM id FROM library WHERE id IN (SELECT library_key FROM (SELECT library_id AS library_key, id AS chunk_key FROM new_rows UNION SELECT library_id AS library_key, id AS chunk_key FROM old_rows) AS r) ORDER BY id FOR NO KEY UPDATE;
        INSERT INTO change (library_key, chunk_key, token)
        SELECT r.library_key, r.chunk_key, ('x' || substr(replace(gen_random_uuid()::text, '-', ''), 1, 16))::bit(64)::bigint FROM (SELECT library_id AS library_key, id AS chunk_key FROM new_rows UNION SELECT library_id AS library_key, id AS chunk_key FROM old_rows) AS r JOIN library ON library.id = r.library_key
        ;
        IF EXISTS (SELECT FROM reembedding WHERE library_id IN (SELECT library_id FROM new_rows)) THEN
            DELETE FROM embedding USING new_rows AS n JOIN old_rows AS o ON o.id = n.id
            JOIN library ON library.id = n.library_id
            WHERE embedding.chunk_id = n.id AND embedding.generation <> library.generation
              AND (n.text <> o.text OR n.library_id <> o.library_id);
        END IF; RETURN NULL; END $$;
CREATE FUNCTION document_delete() RETURNS trigger
    LANGUAGE plpgsql
    AS $$ BEGIN DELETE FROM chunk WHERE document_id IN (SELECT id FROM old_rows); RETURN NULL; END $$;
CREATE FUNCTION embedding_log_delete() RETURNS trigger
    LANGUAGE plpgsql
    AS $$ BEGIN
        PERFORM id FROM library WHERE id IN (SELECT library_key FROM (SELECT chunk.library_id AS library_key, chunk.id AS chunk_key, e.generation
        FROM old_rows AS e JOIN chunk ON chunk.id = e.chunk_id) AS r) ORDER BY id FOR NO KEY UPDATE;
        INSERT INTO change (library_key, chunk_key, token)
        SELECT r.library_key, r.chunk_key, ('x' || substr(replace(gen_random_uuid()::text, '-', ''), 1, 16))::bit(64)::bigint FROM (SELECT chunk.library_id AS library_key, chunk.id AS chunk_key, e.generation
        FROM old_rows AS e JOIN chunk ON chunk.id = e.chunk_id) AS r JOIN library ON library.id = r.library_key
        WHERE library.generation = r.generation; RETURN NULL; END $$;
CREATE FUNCTION embedding_log_insert() RETURNS trigger
    LANGUAGE plpgsql
    AS $$ BEGIN
        IF EXISTS (
            SELECT FROM new_rows n JOIN chunk ON chunk.id = n.chunk_id JOIN library ON library.id = chunk.library_id
            WHERE library.generation = n.generation AND octet_length(n.vector) <> 4 * library.dimension
        ) THEN RAISE EXCEPTION 'embedding.vector must have 4 x library.dimension bytes' USING ERRCODE = '23514';
        END IF;
        PERFORM id FROM library WHERE id IN (SELECT library_key FROM (SELECT chunk.library_id AS library_key, chunk.id AS chunk_key, e.generation
        FROM new_rows AS e JOIN chunk ON chunk.id = e.chunk_id) AS r) ORDER BY id FOR NO KEY UPDATE;
        INSERT INTO change (library_key, chunk_key, token)
        SELECT r.library_key, r.chunk_key, ('x' || substr(replace(gen_random_uuid()::text, '-', ''), 1, 16))::bit(64)::bigint FROM (SELECT chunk.library_id AS library_key, chunk.id AS chunk_key, e.generation
        FROM new_rows AS e JOIN chunk ON chunk.id = e.chunk_id) AS r JOIN library ON library.id = r.library_key
        WHERE library.generation = r.generation; RETURN NULL; END $$;
CREATE FUNCTION embedding_log_truncate() RETURNS trigger
    LANGUAGE plpgsql
    AS $$ BEGIN
        DELETE FROM change;
        INSERT INTO change (library_key, chunk_key, token) SELECT id, 0, ('x' || substr(replace(gen_random_uuid()::text, '-', ''), 1, 16))::bit(64)::bigint FROM library; RETURN NULL; END $$;
CREATE FUNCTION embedding_log_update() RETURNS trigger
    LANGUAGE plpgsql
    AS $$ BEGIN
        IF EXISTS (
            SELECT FROM new_rows n JOIN chunk ON chunk.id = n.chunk_id JOIN library ON library.id = chunk.library_id
            WHERE library.generation = n.generation AND octet_length(n.vector) <> 4 * library.dimension
        ) THEN RAISE EXCEPTION 'embedding.vector must have 4 x library.dimension bytes' USING ERRCODE = '23514';
        END IF;
        PERFORM id FROM library WHERE id IN (SELECT library_key FROM (SELECT chunk.library_id AS library_key, chunk.id AS chunk_key, e.generation
        FROM new_rows AS e JOIN chunk ON chunk.id = e.chunk_id UNION SELECT chunk.library_id AS library_key, chunk.id AS chunk_key, e.generation
        FROM old_rows AS e JOIN chunk ON chunk.id = e.chunk_id) AS r) ORDER BY id FOR NO KEY UPDATE;
        INSERT INTO change (library_key, chunk_key, token)
        SELECT r.library_key, r.chunk_key, ('x' || substr(replace(gen_random_uuid()::text, '-', ''), 1, 16))::bit(64)::bigint FROM (SELECT chunk.library_id AS library_key, chunk.id AS chunk_key, e.generation
        FROM new_rows AS e JOIN chunk ON chunk.id = e.chunk_id UNION SELECT chunk.library_id AS library_key, chunk.id AS chunk_key, e.generation
        FROM old_rows AS e JOIN chunk ON chunk.id = e.chunk_id) AS r JOIN library ON library.id = r.library_key
        WHERE library.generation = r.generation; RETURN NULL; END $$;
CREATE FUNCTION library_delete() RETURNS trigger
    LANGUAGE plpgsql
    AS $$ BEGIN DELETE FROM chunk WHERE library_id IN (SELECT id FROM old_rows);
        DELETE FROM document WHERE library_id IN (SELECT id FROM old_rows);
        DELETE FROM change WHERE library_key IN (SELECT id FROM old_rows);
        DELETE FROM reembedding WHERE library_id IN (SELECT id FROM old_rows); RETURN NULL; END $$;
CREATE FUNCTION library_log_switch() RETURNS trigger
    LANGUAGE plpgsql
    AS $$ BEGIN INSERT INTO change (library_key, chunk_key, token) VALUES (NEW.id, 0, ('x' || substr(replace(gen_random_uuid()::text, '-', ''), 1, 16))::bit(64)::bigint); RETURN NULL; END $$;
CREATE TABLE change (
    seq bigint NOT NULL,
    library_key bigint NOT NULL,
    chunk_key bigint NOT NULL,
    token bigint NOT NULL
);
ALTER TABLE change ALTER COLUMN seq ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME change_seq_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE chunk (
    id bigint NOT NULL,
    public_id character varying(128) NOT NULL,
    text text NOT NULL,
    metadata json NOT NULL,
    "position" integer,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    document_id bigint,
    library_id bigint NOT NULL,
    CONSTRAINT chunk_position_check CHECK (("position" >= 0))
);
ALTER TABLE chunk ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME chunk_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
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
CREATE TABLE document (
    id bigint NOT NULL,
    public_id character varying(128) NOT NULL,
    title text NOT NULL,
    source text NOT NULL,
    metadata json NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    library_id bigint NOT NULL
);
ALTER TABLE document ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME document_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE embedding (
    generation integer NOT NULL,
    vector bytea NOT NULL,
    chunk_id bigint NOT NULL,
    CONSTRAINT embedding_float32 CHECK (((length(vector) > 0) AND ((length(vector) % 4) = 0))),
    CONSTRAINT embedding_generation_check CHECK ((generation >= 0))
);
CREATE TABLE library (
    id bigint NOT NULL,
    public_id character varying(128) NOT NULL,
    uid character varying(32) NOT NULL,
    name character varying(200) NOT NULL,
    description text NOT NULL,
    dimension integer,
    metric character varying(16) NOT NULL,
    index_type character varying(32) NOT NULL,
    index_params json NOT NULL,
    metadata json NOT NULL,
    generation integer NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    manifest bigint NOT NULL,
    rebuild bigint NOT NULL,
    embedding_provider character varying(64) NOT NULL,
    embedding_model character varying(500) NOT NULL,
    CONSTRAINT library_dimension CHECK (((dimension IS NULL) OR (dimension >= 1))),
    CONSTRAINT library_dimension_check CHECK ((dimension >= 0)),
    CONSTRAINT library_generation_check CHECK ((generation >= 0)),
    CONSTRAINT library_metric CHECK (((metric)::text = ANY ((ARRAY['cosine'::character varying, 'dot'::character varying, 'euclidean'::character varying])::text[]))),
    CONSTRAINT library_named CHECK (((NOT ((name)::text = ''::text)) AND (NOT ((public_id)::text = ''::text))))
);
ALTER TABLE library ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME library_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE reembedding (
    library_id bigint NOT NULL,
    generation integer NOT NULL,
    provider character varying(64) NOT NULL,
    model character varying(500) NOT NULL,
    dimension integer,
    state character varying(16) NOT NULL,
    error text NOT NULL,
    retry_at timestamp with time zone,
    created_at timestamp with time zone NOT NULL,
    CONSTRAINT reembedding_dimension_check CHECK ((dimension >= 0)),
    CONSTRAINT reembedding_generation_check CHECK ((generation >= 0))
);
INSERT INTO change VALUES (1, 1, 2, -3686260564708277674);
INSERT INTO change VALUES (2, 1, 1, 6933325552908649358);
INSERT INTO change VALUES (3, 1, 5, 6211275085304777268);
INSERT INTO change VALUES (4, 1, 4, -5533917986102360850);
INSERT INTO change VALUES (5, 1, 3, -7109457531205169186);
INSERT INTO change VALUES (6, 1, 4, 6688679228597685005);
INSERT INTO change VALUES (7, 1, 5, -1743982655533790863);
INSERT INTO change VALUES (8, 1, 5, 681233684374636644);
INSERT INTO chunk VALUES (1, 'call', 'Call me Ishmael.', '{"n":1}', 0, '2026-11-29 08:13:30.581478+00', '2026-11-29 08:13:30.581478+00', 1, 1);
INSERT INTO chunk VALUES (2, 'whale', 'The white whale.', '{"n":2}', 1, '2026-11-29 08:13:30.581478+00', '2026-11-29 08:13:30.581478+00', 1, 1);
INSERT INTO chunk VALUES (3, 'alone', 'It was the best of times.', '{}', NULL, '2026-11-29 08:13:30.620931+00', '2026-11-29 08:13:30.620931+00', NULL, 1);
INSERT INTO chunk VALUES (5, 'changed', 'Second.', '{}', NULL, '2026-11-29 08:13:30.620931+00', '2026-11-29 08:13:30.739727+00', NULL, 1);
INSERT INTO django_migrations VALUES (18, 'libraries', '0001_initial', '2026-11-29 08:13:29.671562+00');
INSERT INTO django_migrations VALUES (19, 'libraries', '0002_index_files', '2026-11-29 08:13:29.768516+00');
INSERT INTO django_migrations VALUES (20, 'libraries', '0003_embedding_model', '2026-11-29 08:13:29.943605+00');
INSERT INTO django_migrations VALUES (21, 'libraries', '0004_reembedding', '2026-11-29 08:13:30.059861+00');
INSERT INTO document VALUES (1, 'whales', 'Moby-Dick', '', '{}', '2026-11-29 08:13:30.579059+00', '2026-11-29 08:13:30.58062+00', 1);
INSERT INTO embedding VALUES (1, '\x0000803f0000000000000000', 1);
INSERT INTO embedding VALUES (1, '\xcdcc4c3f9a99193f00000000', 2);
INSERT INTO embedding VALUES (1, '\x000000000000803f00000000', 3);
INSERT INTO embedding VALUES (1, '\x00000000000000000000803f', 5);
INSERT INTO library VALUES (1, 'books', '82570b820e3ab5676615c666944ea9f7', 'Books', '', 3, 'cosine', 'auto', '{}', '{"shelf":1e+300}', 1, '2026-11-29 08:13:30.523431+00', '2026-11-29 08:13:30.524629+00', 0, 0, '', '');
INSERT INTO library VALUES (2, 'empty', '0822d805ed83d265c3362805d7b6cd97', 'Nothing yet', '', NULL, 'cosine', 'auto', '{}', '{}', 1, '2026-11-29 08:13:30.535809+00', '2026-11-29 08:13:30.536159+00', 0, 0, '', '');
INSERT INTO reembedding VALUES (2, 2, 'hashing', 'hashing-64', NULL, 'waiting', '', NULL, '2026-11-29 08:13:30.792175+00');
SELECT pg_catalog.setval('change_seq_seq', 8, true);
SELECT pg_catalog.setval('chunk_id_seq', 5, true);
SELECT pg_catalog.setval('django_migrations_id_seq', 22, true);
SELECT pg_catalog.setval('document_id_seq', 1, true);
SELECT pg_catalog.setval('library_id_seq', 2, true);
ALTER TABLE ONLY change
    ADD CONSTRAINT change_pkey PRIMARY KEY (seq);
ALTER TABLE ONLY chunk
    ADD CONSTRAINT chunk_id_unique UNIQUE (library_id, public_id);
ALTER TABLE ONLY chunk
    ADD CONSTRAINT chunk_pkey PRIMARY KEY (id);
ALTER TABLE ONLY django_migrations
    ADD CONSTRAINT django_migrations_pkey PRIMARY KEY (id);
ALTER TABLE ONLY document
    ADD CONSTRAINT document_id_unique UNIQUE (library_id, public_id);
ALTER TABLE ONLY document
    ADD CONSTRAINT document_pkey PRIMARY KEY (id);
ALTER TABLE ONLY embedding
    ADD CONSTRAINT embedding_pkey PRIMARY KEY (chunk_id, generation);
ALTER TABLE ONLY library
    ADD CONSTRAINT library_pkey PRIMARY KEY (id);
ALTER TABLE ONLY library
    ADD CONSTRAINT library_public_id_key UNIQUE (public_id);
ALTER TABLE ONLY library
    ADD CONSTRAINT library_uid_key UNIQUE (uid);
ALTER TABLE ONLY reembedding
    ADD CONSTRAINT reembedding_pkey PRIMARY KEY (library_id);
CREATE INDEX change_of_library ON change USING btree (library_key, seq);
CREATE INDEX chunk_of_document ON chunk USING btree (document_id, "position");
CREATE INDEX chunk_order ON chunk USING btree (library_id, id);
CREATE INDEX document_order ON document USING btree (library_id, id);
CREATE INDEX library_public_id_ff871d7e_like ON library USING btree (public_id varchar_pattern_ops);
CREATE INDEX library_uid_9e924572_like ON library USING btree (uid varchar_pattern_ops);
CREATE TRIGGER chunk_log_delete AFTER DELETE ON chunk REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION chunk_log_delete();
CREATE TRIGGER chunk_log_truncate AFTER TRUNCATE ON chunk FOR EACH STATEMENT EXECUTE FUNCTION chunk_log_truncate();
CREATE TRIGGER chunk_log_update AFTER UPDATE ON chunk REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION chunk_log_update();
CREATE TRIGGER document_delete AFTER DELETE ON document REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION document_delete();
CREATE TRIGGER embedding_log_delete AFTER DELETE ON embedding REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION embedding_log_delete();
CREATE TRIGGER embedding_log_insert AFTER INSERT ON embedding REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION embedding_log_insert();
CREATE TRIGGER embedding_log_truncate AFTER TRUNCATE ON embedding FOR EACH STATEMENT EXECUTE FUNCTION embedding_log_truncate();
CREATE TRIGGER embedding_log_update AFTER UPDATE ON embedding REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION embedding_log_update();
CREATE TRIGGER library_delete AFTER DELETE ON library REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION library_delete();
CREATE TRIGGER library_log_switch AFTER UPDATE OF generation ON library FOR EACH ROW WHEN ((old.generation <> new.generation)) EXECUTE FUNCTION library_log_switch();
ALTER TABLE ONLY chunk
    ADD CONSTRAINT chunk_document_id_5b0e8c3f_fk_document_id FOREIGN KEY (document_id) REFERENCES document(id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY chunk
    ADD CONSTRAINT chunk_library_id_07fe6ae8_fk_library_id FOREIGN KEY (library_id) REFERENCES library(id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY document
    ADD CONSTRAINT document_library_id_758aa103_fk_library_id FOREIGN KEY (library_id) REFERENCES library(id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY embedding
    ADD CONSTRAINT embedding_chunk_id_555a1ae7_fk_chunk_id FOREIGN KEY (chunk_id) REFERENCES chunk(id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY reembedding
    ADD CONSTRAINT reembedding_library_id_eb340f22_fk_library_id FOREIGN KEY (library_id) REFERENCES library(id) DEFERRABLE INITIALLY DEFERRED;
