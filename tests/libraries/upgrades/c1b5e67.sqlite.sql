CREATE TABLE "change" ("seq" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "library_key" bigint NOT NULL, "chunk_key" bigint NOT NULL, "token" bigint NOT NULL);
INSERT INTO "change" VALUES(1,1,1,1124019245659458724);
INSERT INTO "change" VALUES(2,1,2,-8175223088388080436);
INSERT INTO "change" VALUES(3,1,3,-3218987243473056202);
INSERT INTO "change" VALUES(4,1,4,5756803009982043944);
INSERT INTO "change" VALUES(5,1,5,2437634352123930876);
INSERT INTO "change" VALUES(6,1,4,8214909963048917422);
INSERT INTO "change" VALUES(7,1,5,-1347285486174536962);
INSERT INTO "change" VALUES(8,1,5,-848788266200316889);
CREATE TABLE "chunk" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "public_id" varchar(128) NOT NULL, "text" text NOT NULL, "metadata" text NOT NULL CHECK ((JSON_VALID("metadata") OR "metadata" IS NULL)), "position" integer unsigned NULL CHECK ("position" >= 0), "created_at" datetime NOT NULL, "updated_at" datetime NOT NULL, "document_id" bigint NULL REFERENCES "document" ("id") DEFERRABLE INITIALLY DEFERRED, "library_id" bigint NOT NULL REFERENCES "library" ("id") DEFERRABLE INITIALLY DEFERRED, CONSTRAINT "chunk_id_unique" UNIQUE ("library_id", "public_id"));
INSERT INTO "chunk" VALUES(1,'call','Call me Ishmael.','{"n":1}',0,'2026-11-29 08:12:51.164246','2026-11-29 08:12:51.164246',1,1);
INSERT INTO "chunk" VALUES(2,'whale','The white whale.','{"n":2}',1,'2026-11-29 08:12:51.164246','2026-11-29 08:12:51.164246',1,1);
INSERT INTO "chunk" VALUES(3,'alone','It was the best of times.','{}',NULL,'2026-11-29 08:12:51.177115','2026-11-29 08:12:51.177115',NULL,1);
INSERT INTO "chunk" VALUES(5,'changed','Second.','{}',NULL,'2026-11-29 08:12:51.177115','2026-11-29 08:12:51.196866',NULL,1);
CREATE TABLE "django_migrations" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "app" varchar(255) NOT NULL, "name" varchar(255) NOT NULL, "applied" datetime NOT NULL);
INSERT INTO "django_migrations" VALUES(18,'libraries','0001_initial','2026-11-29 08:12:50.712429');
INSERT INTO "django_migrations" VALUES(19,'libraries','0002_index_files','2026-11-29 08:12:50.831843');
INSERT INTO "django_migrations" VALUES(20,'libraries','0003_embedding_model','2026-11-29 08:12:50.887693');
INSERT INTO "django_migrations" VALUES(21,'libraries','0004_reembedding','2026-11-29 08:12:50.913127');
CREATE TABLE "document" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "public_id" varchar(128) NOT NULL, "title" text NOT NULL, "source" text NOT NULL, "metadata" text NOT NULL CHECK ((JSON_VALID("metadata") OR "metadata" IS NULL)), "created_at" datetime NOT NULL, "updated_at" datetime NOT NULL, "library_id" bigint NOT NULL REFERENCES "library" ("id") DEFERRABLE INITIALLY DEFERRED, CONSTRAINT "document_id_unique" UNIQUE ("library_id", "public_id"));
INSERT INTO "document" VALUES(1,'whales','Moby-Dick','','{}','2026-11-29 08:12:51.163803','2026-11-29 08:12:51.164010',1);
CREATE TABLE "embedding" ("generation" integer unsigned NOT NULL CHECK ("generation" >= 0), "vector" BLOB NOT NULL, "chunk_id" bigint NOT NULL REFERENCES "chunk" ("id") DEFERRABLE INITIALLY DEFERRED, CONSTRAINT "embedding_float32" CHECK ((LENGTH("vector") > 0 AND (LENGTH("vector") % 4) = 0)), PRIMARY KEY ("chunk_id", "generation"));
INSERT INTO "embedding" VALUES(1,X'0000803F0000000000000000',1);
INSERT INTO "embedding" VALUES(1,X'CDCC4C3F9A99193F00000000',2);
INSERT INTO "embedding" VALUES(1,X'000000000000803F00000000',3);
INSERT INTO "embedding" VALUES(1,X'00000000000000000000803F',5);
CREATE TABLE "library" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "public_id" varchar(128) NOT NULL UNIQUE, "uid" varchar(32) NOT NULL UNIQUE, "name" varchar(200) NOT NULL, "description" text NOT NULL, "dimension" integer unsigned NULL CHECK ("dimension" >= 0), "metric" varchar(16) NOT NULL, "index_type" varchar(32) NOT NULL, "index_params" text NOT NULL CHECK ((JSON_VALID("index_params") OR "index_params" IS NULL)), "metadata" text NOT NULL CHECK ((JSON_VALID("metadata") OR "metadata" IS NULL)), "generation" integer unsigned NOT NULL CHECK ("generation" >= 0), "created_at" datetime NOT NULL, "updated_at" datetime NOT NULL, "manifest" bigint NOT NULL, "rebuild" bigint NOT NULL, "embedding_provider" varchar(64) NOT NULL, "embedding_model" varchar(500) NOT NULL, CONSTRAINT "library_dimension" CHECK (("dimension" IS NULL OR "dimension" >= 1)), CONSTRAINT "library_metric" CHECK ("metric" IN ('cosine', 'dot', 'euclidean')), CONSTRAINT "library_named" CHECK ((NOT ("name" = '') AND NOT ("public_id" = ''))));
INSERT INTO "library" VALUES(1,'books','5057251d7a0058d229c3e88b4c0e713f','Books','',3,'cosine','auto','{}','{"shelf": 1e+300}',1,'2026-11-29 08:12:51.143042','2026-11-29 08:12:51.151743',0,0,'','');
INSERT INTO "library" VALUES(2,'empty','022136f58d7c5a5903864e203a16f950','Nothing yet','',NULL,'cosine','auto','{}','{}',1,'2026-11-29 08:12:51.156774','2026-11-29 08:12:51.157092',0,0,'','');
CREATE TABLE "reembedding" ("library_id" bigint NOT NULL PRIMARY KEY REFERENCES "library" ("id") DEFERRABLE INITIALLY DEFERRED, "generation" integer unsigned NOT NULL CHECK ("generation" >= 0), "provider" varchar(64) NOT NULL, "model" varchar(500) NOT NULL, "dimension" integer unsigned NULL CHECK ("dimension" >= 0), "state" varchar(16) NOT NULL, "error" text NOT NULL, "retry_at" datetime NULL, "created_at" datetime NOT NULL);
INSERT INTO "reembedding" VALUES(2,2,'hashing','hashing-64',NULL,'waiting','',NULL,'2026-11-29 08:12:51.212788');
CREATE INDEX "change_of_library" ON "change" ("library_key", "seq");
CREATE INDEX "document_order" ON "document" ("library_id", "id");
CREATE INDEX "chunk_order" ON "chunk" ("library_id", "id");
CREATE INDEX "chunk_of_document" ON "chunk" ("document_id", "position");
CREATE TRIGGER chunk_log_replaced BEFORE INSERT ON chunk BEGIN
            INSERT INTO change (library_key, chunk_key, token) SELECT library_id, id, random() FROM chunk
            WHERE library_id = NEW.library_id AND public_id = NEW.public_id;
            INSERT INTO change (library_key, chunk_key, token) SELECT library_id, id, random() FROM chunk WHERE id = NEW.id;
            DELETE FROM embedding WHERE chunk_id = NEW.id
            AND generation <> (SELECT generation FROM library WHERE id = NEW.library_id);
        END;
CREATE TRIGGER chunk_log_displaced BEFORE UPDATE OF id, library_id, public_id ON chunk BEGIN
            INSERT INTO change (library_key, chunk_key, token) SELECT library_id, id, random() FROM chunk
            WHERE library_id = NEW.library_id AND public_id = NEW.public_id AND id <> OLD.id;
            INSERT INTO change (library_key, chunk_key, token) SELECT library_id, id, random() FROM chunk WHERE id = NEW.id AND id <> OLD.id;
        END;
CREATE TRIGGER chunk_log_update AFTER UPDATE ON chunk BEGIN
            INSERT INTO change (library_key, chunk_key, token) VALUES (NEW.library_id, NEW.id, random());
            INSERT INTO change (library_key, chunk_key, token) SELECT OLD.library_id, OLD.id, random()
            WHERE OLD.library_id <> NEW.library_id OR OLD.id <> NEW.id;
        END;
CREATE TRIGGER chunk_text_update AFTER UPDATE OF text, library_id ON chunk
        WHEN OLD.text <> NEW.text OR OLD.library_id <> NEW.library_id BEGIN
            DELETE FROM embedding WHERE chunk_id = NEW.id
            AND generation <> (SELECT generation FROM library WHERE id = NEW.library_id);
        END;
CREATE TRIGGER chunk_log_delete AFTER DELETE ON chunk BEGIN
            DELETE FROM embedding WHERE chunk_id = OLD.id;
            INSERT INTO change (library_key, chunk_key, token) SELECT id, OLD.id, random() FROM library WHERE id = OLD.library_id;
        END;
CREATE TRIGGER embedding_check_insert BEFORE INSERT ON embedding BEGIN
            SELECT RAISE(ABORT, 'embedding.vector must have 4 x library.dimension bytes')
            FROM chunk JOIN library ON library.id = chunk.library_id
            WHERE chunk.id = NEW.chunk_id AND library.generation = NEW.generation
              AND length(NEW.vector) <> 4 * library.dimension;
        END;
CREATE TRIGGER embedding_check_update BEFORE UPDATE ON embedding BEGIN
            SELECT RAISE(ABORT, 'embedding.vector must have 4 x library.dimension bytes')
            FROM chunk JOIN library ON library.id = chunk.library_id
            WHERE chunk.id = NEW.chunk_id AND library.generation = NEW.generation
              AND length(NEW.vector) <> 4 * library.dimension;
        END;
CREATE TRIGGER embedding_log_insert AFTER INSERT ON embedding BEGIN
            INSERT INTO change (library_key, chunk_key, token)
            SELECT library.id, chunk.id, random() FROM chunk JOIN library ON library.id = chunk.library_id
            WHERE chunk.id = NEW.chunk_id AND library.generation = NEW.generation;
        END;
CREATE TRIGGER embedding_log_update AFTER UPDATE ON embedding BEGIN
            INSERT INTO change (library_key, chunk_key, token)
            SELECT library.id, chunk.id, random() FROM chunk JOIN library ON library.id = chunk.library_id
            WHERE chunk.id = NEW.chunk_id AND library.generation IN (NEW.generation, OLD.generation);
            INSERT INTO change (library_key, chunk_key, token)
            SELECT library.id, chunk.id, random() FROM chunk JOIN library ON library.id = chunk.library_id
            WHERE chunk.id = OLD.chunk_id AND library.generation = OLD.generation AND chunk.id <> NEW.chunk_id;
        END;
CREATE TRIGGER embedding_log_delete AFTER DELETE ON embedding BEGIN
            INSERT INTO change (library_key, chunk_key, token)
            SELECT library.id, chunk.id, random() FROM chunk JOIN library ON library.id = chunk.library_id
            WHERE chunk.id = OLD.chunk_id AND library.generation = OLD.generation;
        END;
CREATE TRIGGER document_delete AFTER DELETE ON document BEGIN
            DELETE FROM chunk WHERE document_id = OLD.id;
        END;
CREATE TRIGGER library_log_switch AFTER UPDATE OF generation ON library WHEN OLD.generation <> NEW.generation BEGIN
            INSERT INTO change (library_key, chunk_key, token) VALUES (NEW.id, 0, random());
        END;
CREATE TRIGGER library_delete AFTER DELETE ON library BEGIN
            DELETE FROM chunk WHERE library_id = OLD.id;
            DELETE FROM document WHERE library_id = OLD.id;
            DELETE FROM change WHERE library_key = OLD.id;
            DELETE FROM reembedding WHERE library_id = OLD.id;
        END;
INSERT INTO "sqlite_sequence" VALUES('document',1);
INSERT INTO "sqlite_sequence" VALUES('chunk',5);
INSERT INTO "sqlite_sequence" VALUES('library',2);
INSERT INTO "sqlite_sequence" VALUES('change',8);
