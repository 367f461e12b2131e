CREATE TABLE "django_migrations" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "app" varchar(255) NOT NULL, "name" varchar(255) NOT NULL, "applied" datetime NOT NULL);
INSERT INTO "django_migrations" VALUES(18,'libraries','0001_initial','2026-11-29 16:07:06.109075');
INSERT INTO "django_migrations" VALUES(19,'libraries','0002_index_files','2026-11-29 16:07:06.109358');
INSERT INTO "django_migrations" VALUES(20,'libraries','0003_embedding_model','2026-11-29 16:07:06.109527');
INSERT INTO "django_migrations" VALUES(21,'libraries','0004_reembedding','2026-11-29 16:07:06.109658');
INSERT INTO "django_migrations" VALUES(22,'libraries','0005_table_prefix','2026-11-29 16:07:06.109787');
INSERT INTO "django_migrations" VALUES(24,'libraries','0001_squashed_0005_table_prefix','2026-11-29 16:07:06.111713');
CREATE TABLE "vectordb_change" ("seq" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "library_key" bigint NOT NULL, "chunk_key" bigint NOT NULL, "token" bigint NOT NULL);
INSERT INTO "vectordb_change" VALUES(1,1,1,5530361710459499438);
INSERT INTO "vectordb_change" VALUES(2,1,2,-1955260409124879915);
INSERT INTO "vectordb_change" VALUES(3,1,3,-2846852761002511511);
INSERT INTO "vectordb_change" VALUES(4,1,4,8094516931903018330);
INSERT INTO "vectordb_change" VALUES(5,1,5,-5067184841185139599);
INSERT INTO "vectordb_change" VALUES(6,1,4,9000003224441179135);
INSERT INTO "vectordb_change" VALUES(7,1,5,4814337443471408381);
INSERT INTO "vectordb_change" VALUES(8,1,5,4257433353543495144);
CREATE TABLE "vectordb_chunk" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "library_id" bigint NOT NULL REFERENCES "vectordb_library" ("id") DEFERRABLE INITIALLY DEFERRED, "document_id" bigint NULL REFERENCES "vectordb_document" ("id") DEFERRABLE INITIALLY DEFERRED, "public_id" varchar(128) NOT NULL, "text" text NOT NULL, "metadata" text NOT NULL CHECK ((JSON_VALID("metadata") OR "metadata" IS NULL)), "position" integer unsigned NULL CHECK ("position" >= 0), "created_at" datetime NOT NULL, "updated_at" datetime NOT NULL, CONSTRAINT "vectordb_chunk_id_unique" UNIQUE ("library_id", "public_id"));
INSERT INTO "vectordb_chunk" VALUES(1,1,1,'call','Call me Ishmael.','{"n":1}',0,'2026-11-29 16:07:06.147446','2026-11-29 16:07:06.147446');
INSERT INTO "vectordb_chunk" VALUES(2,1,1,'whale','The white whale.','{"n":2}',1,'2026-11-29 16:07:06.147446','2026-11-29 16:07:06.147446');
INSERT INTO "vectordb_chunk" VALUES(3,1,NULL,'alone','It was the best of times.','{}',NULL,'2026-11-29 16:07:06.158592','2026-11-29 16:07:06.158592');
INSERT INTO "vectordb_chunk" VALUES(5,1,NULL,'changed','Second.','{}',NULL,'2026-11-29 16:07:06.158592','2026-11-29 16:07:06.167050');
CREATE TABLE "vectordb_document" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "library_id" bigint NOT NULL REFERENCES "vectordb_library" ("id") DEFERRABLE INITIALLY DEFERRED, "public_id" varchar(128) NOT NULL, "title" text NOT NULL, "source" text NOT NULL, "metadata" text NOT NULL CHECK ((JSON_VALID("metadata") OR "metadata" IS NULL)), "created_at" datetime NOT NULL, "updated_at" datetime NOT NULL, CONSTRAINT "vectordb_document_id_unique" UNIQUE ("library_id", "public_id"));
INSERT INTO "vectordb_document" VALUES(1,1,'whales','Moby-Dick','','{}','2026-11-29 16:07:06.146824','2026-11-29 16:07:06.147086');
CREATE TABLE "vectordb_embedding" ("chunk_id" bigint NOT NULL REFERENCES "vectordb_chunk" ("id") DEFERRABLE INITIALLY DEFERRED, "generation" integer unsigned NOT NULL CHECK ("generation" >= 0), "vector" BLOB NOT NULL, CONSTRAINT "vectordb_embedding_float32" CHECK ((LENGTH("vector") > 0 AND (LENGTH("vector") % 4) = 0)), PRIMARY KEY ("chunk_id", "generation"));
INSERT INTO "vectordb_embedding" VALUES(1,1,X'0000803F0000000000000000');
INSERT INTO "vectordb_embedding" VALUES(2,1,X'CDCC4C3F9A99193F00000000');
INSERT INTO "vectordb_embedding" VALUES(3,1,X'000000000000803F00000000');
INSERT INTO "vectordb_embedding" VALUES(5,1,X'00000000000000000000803F');
CREATE TABLE "vectordb_library" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "public_id" varchar(128) NOT NULL UNIQUE, "uid" varchar(32) NOT NULL UNIQUE, "name" varchar(200) NOT NULL, "description" text NOT NULL, "dimension" integer unsigned NULL CHECK ("dimension" >= 0), "metric" varchar(16) NOT NULL, "index_type" varchar(32) NOT NULL, "index_params" text NOT NULL CHECK ((JSON_VALID("index_params") OR "index_params" IS NULL)), "embedding_provider" varchar(64) NOT NULL, "embedding_model" varchar(500) NOT NULL, "metadata" text NOT NULL CHECK ((JSON_VALID("metadata") OR "metadata" IS NULL)), "generation" integer unsigned NOT NULL CHECK ("generation" >= 0), "manifest" bigint NOT NULL, "rebuild" bigint NOT NULL, "created_at" datetime NOT NULL, "updated_at" datetime NOT NULL, CONSTRAINT "vectordb_library_dimension" CHECK (("dimension" IS NULL OR "dimension" >= 1)), CONSTRAINT "vectordb_library_metric" CHECK ("metric" IN ('cosine', 'dot', 'euclidean')), CONSTRAINT "vectordb_library_named" CHECK ((NOT ("name" = '') AND NOT ("public_id" = ''))));
INSERT INTO "vectordb_library" VALUES(1,'books','e83001e7d532a4c08ccecf4cf2b753f2','Books','',3,'cosine','auto','{}','','','{"shelf": 1e+300}',1,0,0,'2026-11-29 16:07:06.141590','2026-11-29 16:07:06.142124');
INSERT INTO "vectordb_library" VALUES(2,'empty','8ea927fdacec968ad5cc76cf7ca9a9f9','Nothing yet','',NULL,'cosine','auto','{}','','','{}',1,0,0,'2026-11-29 16:07:06.143934','2026-11-29 16:07:06.144238');
CREATE TABLE "vectordb_reembedding" ("library_id" bigint NOT NULL PRIMARY KEY REFERENCES "vectordb_library" ("id") DEFERRABLE INITIALLY DEFERRED, "generation" integer unsigned NOT NULL CHECK ("generation" >= 0), "provider" varchar(64) NOT NULL, "model" varchar(500) NOT NULL, "dimension" integer unsigned NULL CHECK ("dimension" >= 0), "state" varchar(16) NOT NULL, "error" text NOT NULL, "retry_at" datetime NULL, "created_at" datetime NOT NULL);
INSERT INTO "vectordb_reembedding" VALUES(2,2,'hashing','hashing-64',NULL,'waiting','',NULL,'2026-11-29 16:07:06.174212');
CREATE INDEX "vectordb_document_order" ON "vectordb_document" ("library_id", "id");
CREATE INDEX "vectordb_chunk_order" ON "vectordb_chunk" ("library_id", "id");
CREATE INDEX "vectordb_chunk_of_document" ON "vectordb_chunk" ("document_id", "position");
CREATE INDEX "vectordb_change_of_library" ON "vectordb_change" ("library_key", "seq");
CREATE TRIGGER vectordb_chunk_log_replaced BEFORE INSERT ON vectordb_chunk BEGIN
            INSERT INTO vectordb_change (library_key, chunk_key, token) SELECT library_id, id, random() FROM vectordb_chunk
            WHERE library_id = NEW.library_id AND public_id = NEW.public_id;
            INSERT INTO vectordb_change (library_key, chunk_key, token) SELECT library_id, id, random() FROM vectordb_chunk WHERE id = NEW.id;
            DELETE FROM vectordb_embedding WHERE chunk_id = NEW.id
            AND generation <> (SELECT generation FROM vectordb_library WHERE id = NEW.library_id);
        END;
CREATE TRIGGER vectordb_chunk_log_displaced BEFORE UPDATE OF id, library_id, public_id ON vectordb_chunk BEGIN
            INSERT INTO vectordb_change (library_key, chunk_key, token) SELECT library_id, id, random() FROM vectordb_chunk
            WHERE library_id = NEW.library_id AND public_id = NEW.public_id AND id <> OLD.id;
            INSERT INTO vectordb_change (library_key, chunk_key, token) SELECT library_id, id, random() FROM vectordb_chunk WHERE id = NEW.id AND id <> OLD.id;
        END;
CREATE TRIGGER vectordb_chunk_log_update AFTER UPDATE ON vectordb_chunk BEGIN
            INSERT INTO vectordb_change (library_key, chunk_key, token) VALUES (NEW.library_id, NEW.id, random());
            INSERT INTO vectordb_change (library_key, chunk_key, token) SELECT OLD.library_id, OLD.id, random()
            WHERE OLD.library_id <> NEW.library_id OR OLD.id <> NEW.id;
        END;
CREATE TRIGGER vectordb_chunk_text_update AFTER UPDATE OF text, library_id ON vectordb_chunk
        WHEN OLD.text <> NEW.text OR OLD.library_id <> NEW.library_id BEGIN
            DELETE FROM vectordb_embedding WHERE chunk_id = NEW.id
            AND generation <> (SELECT generation FROM vectordb_library WHERE id = NEW.library_id);
        END;
CREATE TRIGGER vectordb_chunk_log_delete AFTER DELETE ON vectordb_chunk BEGIN
            DELETE FROM vectordb_embedding WHERE chunk_id = OLD.id;
            INSERT INTO vectordb_change (library_key, chunk_key, token) SELECT id, OLD.id, random() FROM vectordb_library WHERE id = OLD.library_id;
        END;
CREATE TRIGGER vectordb_embedding_check_insert BEFORE INSERT ON vectordb_embedding BEGIN
            SELECT RAISE(ABORT, 'embedding.vector must have 4 x library.dimension bytes')
            FROM vectordb_chunk AS chunk JOIN vectordb_library AS library ON library.id = chunk.library_id
            WHERE chunk.id = NEW.chunk_id AND library.generation = NEW.generation
              AND length(NEW.vector) <> 4 * library.dimension;
        END;
CREATE TRIGGER vectordb_embedding_check_update BEFORE UPDATE ON vectordb_embedding BEGIN
            SELECT RAISE(ABORT, 'embedding.vector must have 4 x library.dimension bytes')
            FROM vectordb_chunk AS chunk JOIN vectordb_library AS library ON library.id = chunk.library_id
            WHERE chunk.id = NEW.chunk_id AND library.generation = NEW.generation
              AND length(NEW.vector) <> 4 * library.dimension;
        END;
CREATE TRIGGER vectordb_embedding_log_insert AFTER INSERT ON vectordb_embedding BEGIN
            INSERT INTO vectordb_change (library_key, chunk_key, token)
            SELECT library.id, chunk.id, random()
            FROM vectordb_chunk AS chunk JOIN vectordb_library AS library ON library.id = chunk.library_id
            WHERE chunk.id = NEW.chunk_id AND library.generation = NEW.generation;
        END;
CREATE TRIGGER vectordb_embedding_log_update AFTER UPDATE ON vectordb_embedding BEGIN
            INSERT INTO vectordb_change (library_key, chunk_key, token)
            SELECT library.id, chunk.id, random()
            FROM vectordb_chunk AS chunk JOIN vectordb_library AS library ON library.id = chunk.library_id
            WHERE chunk.id = NEW.chunk_id AND library.generation IN (NEW.generation, OLD.generation);
            INSERT INTO vectordb_change (library_key, chunk_key, token)
            SELECT library.id, chunk.id, random()
            FROM vectordb_chunk AS chunk JOIN vectordb_library AS library ON library.id = chunk.library_id
            WHERE chunk.id = OLD.chunk_id AND library.generation = OLD.generation AND chunk.id <> NEW.chunk_id;
        END;
CREATE TRIGGER vectordb_embedding_log_delete AFTER DELETE ON vectordb_embedding BEGIN
            INSERT INTO vectordb_change (library_key, chunk_key, token)
            SELECT library.id, chunk.id, random()
            FROM vectordb_chunk AS chunk JOIN vectordb_library AS library ON library.id = chunk.library_id
            WHERE chunk.id = OLD.chunk_id AND library.generation = OLD.generation;
        END;
CREATE TRIGGER vectordb_document_delete AFTER DELETE ON vectordb_document BEGIN
            DELETE FROM vectordb_chunk WHERE document_id = OLD.id;
        END;
CREATE TRIGGER vectordb_library_log_switch AFTER UPDATE OF generation ON vectordb_library WHEN OLD.generation <> NEW.generation BEGIN
            INSERT INTO vectordb_change (library_key, chunk_key, token) VALUES (NEW.id, 0, random());
        END;
CREATE TRIGGER vectordb_library_delete AFTER DELETE ON vectordb_library BEGIN
            DELETE FROM vectordb_chunk WHERE library_id = OLD.id;
            DELETE FROM vectordb_document WHERE library_id = OLD.id;
            DELETE FROM vectordb_change WHERE library_key = OLD.id;
            DELETE FROM vectordb_reembedding WHERE library_id = OLD.id;
        END;
INSERT INTO "sqlite_sequence" VALUES('vectordb_library',2);
INSERT INTO "sqlite_sequence" VALUES('vectordb_document',1);
INSERT INTO "sqlite_sequence" VALUES('vectordb_change',8);
INSERT INTO "sqlite_sequence" VALUES('vectordb_chunk',5);
