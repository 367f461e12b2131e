CREATE TABLE "change" ("seq" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "library_key" bigint NOT NULL, "chunk_key" bigint NOT NULL, "token" bigint NOT NULL);
INSERT INTO "change" VALUES(1,1,1,-2651863744986867307);
INSERT INTO "change" VALUES(2,1,2,-8688281239824521072);
INSERT INTO "change" VALUES(3,1,3,-2745812979694496706);
INSERT INTO "change" VALUES(4,1,4,-4439505123156931714);
INSERT INTO "change" VALUES(5,1,5,-5091741382425982176);
INSERT INTO "change" VALUES(6,1,4,-8546925329441264219);
INSERT INTO "change" VALUES(7,1,5,3137997411655407929);
INSERT INTO "change" VALUES(8,1,5,8462083780906548857);
CREATE TABLE "chunk" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "public_id" varchar(128) NOT NULL, "text" text NOT NULL, "metadata" text NOT NULL CHECK ((JSON_VALID("metadata") OR "metadata" IS NULL)), "position" integer unsigned NULL CHECK ("position" >= 0), "created_at" datetime NOT NULL, "updated_at" datetime NOT NULL, "document_id" bigint NULL REFERENCES "document" ("id") DEFERRABLE INITIALLY DEFERRED, "library_id" bigint NOT NULL REFERENCES "library" ("id") DEFERRABLE INITIALLY DEFERRED, CONSTRAINT "chunk_id_unique" UNIQUE ("library_id", "public_id"));
INSERT INTO "chunk" VALUES(1,'call','Call me Ishmael.','{"n":1}',0,'2026-11-29 08:12:41.742877','2026-11-29 08:12:41.742877',1,1);
INSERT INTO "chunk" VALUES(2,'whale','The white whale.','{"n":2}',1,'2026-11-29 08:12:41.742877','2026-11-29 08:12:41.742877',1,1);
INSERT INTO "chunk" VALUES(3,'alone','It was the best of times.','{}',NULL,'2026-11-29 08:12:41.778318','2026-11-29 08:12:41.778318',NULL,1);
INSERT INTO "chunk" VALUES(5,'changed','Second.','{}',NULL,'2026-11-29 08:12:41.778318','2026-11-29 08:12:41.802554',NULL,1);
CREATE TABLE "django_migrations" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "app" varchar(255) NOT NULL, "name" varchar(255) NOT NULL, "applied" datetime NOT NULL);
INSERT INTO "django_migrations" VALUES(18,'libraries','0001_initial','2026-11-29 08:12:41.034952');
INSERT INTO "django_migrations" VALUES(19,'libraries','0002_index_files','2026-11-29 08:12:41.073196');
CREATE TABLE "document" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "public_id" varchar(128) NOT NULL, "title" text NOT NULL, "source" text NOT NULL, "metadata" text NOT NULL CHECK ((JSON_VALID("metadata") OR "metadata" IS NULL)), "created_at" datetime NOT NULL, "updated_at" datetime NOT NULL, "library_id" bigint NOT NULL REFERENCES "library" ("id") DEFERRABLE INITIALLY DEFERRED, CONSTRAINT "document_id_unique" UNIQUE ("library_id", "public_id"));
INSERT INTO "document" VALUES(1,'whales','Moby-Dick','','{}','2026-11-29 08:12:41.742444','2026-11-29 08:12:41.742644',1);
CREATE TABLE "embedding" ("generation" integer unsigned NOT NULL CHECK ("generation" >= 0), "vector" BLOB NOT NULL, "chunk_id" bigint NOT NULL REFERENCES "chunk" ("id") DEFERRABLE INITIALLY DEFERRED, CONSTRAINT "embedding_float32" CHECK ((LENGTH("vector") > 0 AND (LENGTH("vector") % 4) = 0)), PRIMARY KEY ("chunk_id", "generation"));
INSERT INTO "embedding" VALUES(1,X'0000803F0000000000000000',1);
INSERT INTO "embedding" VALUES(1,X'CDCC4C3F9A99193F00000000',2);
INSERT INTO "embedding" VALUES(1,X'000000000000803F00000000',3);
INSERT INTO "embedding" VALUES(1,X'00000000000000000000803F',5);
CREATE TABLE "library" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "public_id" varchar(128) NOT NULL UNIQUE, "uid" varchar(32) NOT NULL UNIQUE, "name" varchar(200) NOT NULL, "description" text NOT NULL, "dimension" integer unsigned NULL CHECK ("dimension" >= 0), "metric" varchar(16) NOT NULL, "index_type" varchar(32) NOT NULL, "index_params" text NOT NULL CHECK ((JSON_VALID("index_params") OR "index_params" IS NULL)), "metadata" text NOT NULL CHECK ((JSON_VALID("metadata") OR "metadata" IS NULL)), "generation" integer unsigned NOT NULL CHECK ("generation" >= 0), "created_at" datetime NOT NULL, "updated_at" datetime NOT NULL, "manifest" bigint NOT NULL, "rebuild" bigint NOT NULL, CONSTRAINT "library_dimension" CHECK (("dimension" IS NULL OR "dimension" >= 1)), CONSTRAINT "library_metric" CHECK ("metric" IN ('cosine', 'dot', 'euclidean')), CONSTRAINT "library_named" CHECK ((NOT ("name" = '') AND NOT ("public_id" = ''))));
INSERT INTO "library" VALUES(1,'books','009eda9e0b8b96b837dd0ea170a7fb85','Books','',3,'cosine','auto','{}','{"shelf": 1e+300}',1,'2026-11-29 08:12:41.692484','2026-11-29 08:12:41.692890',0,0);
INSERT INTO "library" VALUES(2,'empty','c3c428604bf301a6a4039c56175d3fcc','Nothing yet','',NULL,'cosine','auto','{}','{}',1,'2026-11-29 08:12:41.726706','2026-11-29 08:12:41.727026',0,0);
CREATE INDEX "change_of_library" ON "change" ("library_key", "seq");
CREATE INDEX "document_order" ON "document" ("library_id", "id");
CREATE INDEX "chunk_order" ON "chunk" ("library_id", "id");
CREATE INDEX "chunk_of_document" ON "chunk" ("document_id", "position");
CREATE TRIGGER chunk_log_replaced BEFORE INSERT ON chunk BEGIN
            INSERT INTO change (library_key, chunk_key, token) SELECT library_id, id, random() FROM chunk
            WHERE library_id = NEW.library_id AND public_id = NEW.public_id;
            INSERT INTO change (library_key, chunk_key, token) SELECT library_id, id, random() FROM chunk WHERE id = NEW.id;
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
            INSERT INTO change (library_key, chunk_key, token) SELECT library_id, id, random() FROM chunk WHERE id = NEW.chunk_id;
        END;
CREATE TRIGGER embedding_log_update AFTER UPDATE ON embedding BEGIN
            INSERT INTO change (library_key, chunk_key, token) SELECT library_id, id, random() FROM chunk WHERE id = NEW.chunk_id;
            INSERT INTO change (library_key, chunk_key, token) SELECT library_id, id, random() FROM chunk WHERE id = OLD.chunk_id AND id <> NEW.chunk_id;
        END;
CREATE TRIGGER embedding_log_delete AFTER DELETE ON embedding BEGIN
            INSERT INTO change (library_key, chunk_key, token) SELECT library_id, id, random() FROM chunk WHERE id = OLD.chunk_id;
        END;
CREATE TRIGGER document_delete AFTER DELETE ON document BEGIN
            DELETE FROM chunk WHERE document_id = OLD.id;
        END;
CREATE TRIGGER library_delete AFTER DELETE ON library BEGIN
            DELETE FROM chunk WHERE library_id = OLD.id;
            DELETE FROM document WHERE library_id = OLD.id;
            DELETE FROM change WHERE library_key = OLD.id;
        END;
INSERT INTO "sqlite_sequence" VALUES('document',1);
INSERT INTO "sqlite_sequence" VALUES('chunk',5);
INSERT INTO "sqlite_sequence" VALUES('library',2);
INSERT INTO "sqlite_sequence" VALUES('change',8);
