# SPDX-License-Identifier: Apache-2.0
#
# Shows for every rule of tools/check that a small tree without fault is clean, and that the rule
# finds a fault planted in it, at its place. Trees are made in a temporary folder.

import importlib.machinery
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
import unittest.mock
from pathlib import Path
from types import ModuleType

CHECK = Path(__file__).resolve().parents[2] / "tools" / "check"


def load_check() -> ModuleType:
    """tools/check as a module; its name has no .py."""
    loader = importlib.machinery.SourceFileLoader("check", str(CHECK))
    spec = importlib.util.spec_from_loader("check", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["check"] = module
    loader.exec_module(module)
    return module


check = load_check()

SPDX = "SPDX-License-Identifier: Apache-2.0"
HEADER = f"// {SPDX}\n//\n// What this is.\n// What goes in and out.\n"


def header(path: str, body: str = "") -> str:
    """A faultless .h file."""
    guard = "CHAPTERSYNC_" + path.replace("/", "_").replace(".", "_").upper() + "_"
    return f"{HEADER}#ifndef {guard}\n#define {guard}\n\n{body}\n#endif  // {guard}\n"


def proto(body: str) -> str:
    """A faultless .proto file around `body`."""
    return f'{HEADER}syntax = "proto3";\n\npackage chaptersync.v1;\n\n{body}'


CLEAN: dict[str, str] = {
    ".clang-format": "BasedOnStyle: Google\nColumnLimit: 100\n",
    "proto/CMakeLists.txt": f"# {SPDX}\nset(names member)\n",
    "proto/chaptersync/v1/member.proto": proto(
        """// A person.
message Member {
  option (chaptersync.v1.entity) = {
    singular: "member";
  };
  // Where to reach the person.
  map<string, Contact> contacts = 1;
  // The name.
  optional string name = 2 [(chaptersync.v1.rules) = {required: true}];
}

// One way to reach a person.
message Contact {
  oneof way {  // How.
    string phone = 1;  // A telephone number.
    // A mail address.
    string mail = 2;
  }
}

// Members.
service MemberService {
  // Gives one.
  rpc Get(Member) returns (stream Member) {
    option deprecated = true;
  }
}

/* A choice. */
enum Choice {
  // None.
  CHOICE_UNSPECIFIED = 0;
}

extend google.protobuf.FieldOptions {
  // Rules.
  Contact rules = 50001;
}
"""
    ),
    "storage/CMakeLists.txt": f"# {SPDX}\nchapter_library(core SRCS core/merge.cc)\n"
    "chapter_library(engine SRCS engine/engine.cc)\n",
    "storage/core/merge.h": header("storage/core/merge.h", "int Merge();\n"),
    "storage/core/merge.cc": f'{HEADER}#include "storage/core/merge.h"\n\n#include <vector>\n\n'
    "int Merge() { return 1; }\n",
    "storage/engine/engine.h": header("storage/engine/engine.h", "#include <rocksdb/db.h>\n"),
    "storage/engine/engine.cc": f'{HEADER}#include "storage/engine/engine.h"\n',
    "node/api/api.h": header("node/api/api.h", "#include <grpcpp/grpcpp.h>\n"),
    "tests/hub/hub_test.cc": f'{HEADER}#include "storage/core/merge.h"\n',
    "tests/hub/CMakeLists.txt": f"# {SPDX}\nchapter_test(hub_test SRCS hub_test.cc)\n",
    "tools/run": f"#!/bin/bash\n# {SPDX}\n#\n# Runs it.\n# Takes no options.\nexit 0\n",
    "tools/run.py": f'# {SPDX}\n"""Runs it.\n\nTakes no options."""\n',
}


class CheckTest(unittest.TestCase):
    """Plants one fault at a time."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="check-test-")
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        for path, text in CLEAN.items():
            self.write(path, text)

    def write(self, path: str, text: str) -> None:
        """Makes or replaces a file of the tree."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def findings(self) -> set[tuple[str, str]]:
        """What the checks find: file and rule."""
        tree = check.Tree(self.root)
        return {(f.path, f.rule) for one in check.CHECKS for f in one(tree)}

    def expect(self, path: str, text: str, rule: str, mentions: str = "") -> None:
        """Plants a file; exactly this rule must find it, there and nowhere else."""
        self.write(path, text)
        tree = check.Tree(self.root)
        found = [f for one in check.CHECKS for f in one(tree)]
        self.assertEqual({(f.path, f.rule) for f in found}, {(path, rule)}, found)
        self.assertIn(mentions, found[0].text)

    def add(self, path: str, line: str, rule: str, mentions: str = "") -> None:
        """Plants a line into a faultless C++ file, before its last line."""
        text = CLEAN.get(path) or (header(path) if path.endswith(".h") else HEADER)
        if not path.endswith(".h"):
            text = text + line + "\n"
        else:
            text = text.replace("\n#endif", f"{line}\n\n#endif")
        if path.endswith(".cc") and path not in CLEAN:
            self.write("CMakeLists.txt", f"# {SPDX}\nchapter_library(x SRCS {path})\n")
        self.expect(path, text, rule, mentions)

    def test_a_faultless_tree_is_clean(self) -> None:
        self.assertEqual(self.findings(), set())

    def test_storage_may_not_include_node(self) -> None:
        self.add("storage/engine/engine.cc", '#include "node/api/api.h"', "include", "node/")

    def test_node_may_not_include_hub(self) -> None:
        self.add("node/api/other.h", '#include "hub/server.h"', "include", "hub/")

    def test_hub_may_not_include_tools(self) -> None:
        self.add("hub/server.cc", '#include "tools/chapterctl/x.h"', "include", "tools/")

    def test_nothing_includes_tests(self) -> None:
        self.add("tools/bench.cc", '#include "tests/hub/x.h"', "include", "nothing includes tests")

    def test_an_include_names_the_path_from_the_root(self) -> None:
        self.add("storage/engine/other.cc", '#include "engine.h"', "include", "from the root")

    def test_rocksdb_stays_below_the_engine(self) -> None:
        self.add("storage/replica/replica.cc", "#include <rocksdb/db.h>", "include", "RocksDB")

    def test_no_grpc_in_storage(self) -> None:
        self.add("storage/engine/engine.cc", "#include <grpcpp/grpcpp.h>", "include", "gRPC")

    def test_no_grpc_in_entities(self) -> None:
        line = '#include "chaptersync/v1/sync.grpc.pb.h"'
        self.add("node/entity/entity.cc", line, "include", "gRPC")

    def test_pure_parts_have_no_impure_headers(self) -> None:
        for name in (
            "thread mutex chrono fstream iostream random filesystem spdlog/spdlog.h "
            "condition_variable absl/synchronization/mutex.h absl/time/clock.h sys/stat.h"
        ).split():
            with self.subTest(name):
                self.add("storage/core/merge.cc", f"#include <{name}>", "pure", name)

    def test_pure_parts_have_no_impure_headers_through_others(self) -> None:
        self.write("storage/replica/log.h", header("storage/replica/log.h", "#include <mutex>\n"))
        line = '#include "storage/replica/log.h"'
        self.add("node/session/session.cc", line, "pure", "through storage/replica/log.h")

    def test_pure_parts_have_no_rocksdb_through_the_engine(self) -> None:
        line = '#include "storage/engine/engine.h"'
        self.add("storage/reconcile/sketch.h", line, "pure", "rocksdb/db.h")

    def test_a_header_begins_with_the_licence(self) -> None:
        text = CLEAN["tools/run"].replace("SPDX", "Licence")
        self.expect("tools/run", text, "header", SPDX)

    def test_a_header_says_enough(self) -> None:
        self.expect("tools/run.py", f'# {SPDX}\n"""Runs it."""\n', "header", "1 lines")

    def test_a_header_is_short(self) -> None:
        text = CLEAN["tools/run"].replace("# Runs", "# And\n" * 5 + "# runs")
        self.expect("tools/run", text, "header", "7 lines")

    def test_a_header_can_be_followed_by_a_grammar(self) -> None:
        path = "storage/core/merge.cc"
        self.write(path, CLEAN[path].replace(HEADER, HEADER + "//\n" + "// a := b c\n" * 9))
        self.assertEqual(self.findings(), set())

    def test_guards_follow_the_path(self) -> None:
        text = header("storage/core/merging.h")
        self.expect("storage/core/merge.h", text, "guard", "CHAPTERSYNC_STORAGE_CORE_MERGE_H_")

    def test_guards_name_what_they_end(self) -> None:
        text = CLEAN["storage/core/merge.h"].replace("#endif  //", "#endif //")
        self.expect("storage/core/merge.h", text, "guard", "#endif")

    def test_own_header_first(self) -> None:
        text = f'{HEADER}#include <vector>\n\n#include "storage/core/merge.h"\n'
        self.expect("storage/core/merge.cc", text, "own-header", "storage/core/merge.h")

    def test_banned_words(self) -> None:
        # Put together, so that this file does not hold them.
        for word in ("GTEST_" + "SKIP()", "TEST(A, DIS" + "ABLED_B)", "// TO" + "DO: x"):
            with self.subTest(word):
                self.add("node/api/api.h", word, "banned")
        for word in ("// FIX" + "ME", "// XX" + "X", 'Open("/ho' + 'me/me")', "// /wo" + "rk/x"):
            with self.subTest(word):
                self.add("node/api/api.h", word, "banned")

    def test_what_only_looks_banned_is_fine(self) -> None:
        path = "node/api/api.h"
        text = CLEAN[path].replace("What this is", "mktemp a.XX" + "XXXX; https://x.org/wo" + "rk/a")
        self.write(path, text)
        self.assertEqual(self.findings(), set())

    def test_tests_do_not_sleep(self) -> None:
        self.add("tests/hub/hub_test.cc", "std::this_thread::sleep_" + "for(1s);", "banned")

    def test_a_lock_file_names_no_registry(self) -> None:
        text = '{"resolved": "http' + '://registry.example/x.tgz"}\n'
        self.expect("tools/package-lock.json", text, "banned")

    def test_sources_are_named(self) -> None:
        self.expect("hub/forgotten.cc", HEADER, "named")
        (self.root / "hub/forgotten.cc").unlink()
        self.expect("proto/chaptersync/v1/forgotten.proto", proto(""), "named")

        (self.root / "proto/chaptersync/v1/forgotten.proto").unlink()
        text = CLEAN["tools/run.py"]
        self.expect("tests/tools/forgotten_test.py", text, "named")

    def test_cmake_files_begin_with_the_licence(self) -> None:
        text = CLEAN["proto/CMakeLists.txt"].replace("# SPDX", "#SPDX")
        self.expect("proto/CMakeLists.txt", text, "header", SPDX)

    def test_sources_are_not_globbed(self) -> None:
        self.expect("hub/CMakeLists.txt", f"# {SPDX}\nfile(GLOB sources *.cc)\n", "named", "glob")

    def test_every_proto_element_has_a_comment(self) -> None:
        path = "proto/chaptersync/v1/member.proto"
        for comment, element in (
            ("// A person.\n", "message Member"),
            ("  // The name.\n", "field Member.name"),
            ("  // Where to reach the person.\n", "field Member.contacts"),
            ("  // A telephone number.", "field Contact.way.phone"),
            ("    // A mail address.\n", "field Contact.way.mail"),
            ("  // How.", "oneof Contact.way"),
            ("// Members.\n", "service MemberService"),
            ("  // Gives one.\n", "rpc MemberService.Get"),
            ("/* A choice. */\n", "enum Choice"),
            ("  // None.\n", "enum value Choice.CHOICE_UNSPECIFIED"),
            ("  // Rules.\n", "rules"),
        ):
            with self.subTest(element):
                self.assertEqual(CLEAN[path].count(comment), 1)
                self.expect(path, CLEAN[path].replace(comment, ""), "proto-comment", element)

    def test_a_comment_beside_one_element_is_not_the_next_ones(self) -> None:
        path = "proto/chaptersync/v1/member.proto"
        text = CLEAN[path].replace("    // A mail address.\n", "")
        self.expect(path, text, "proto-comment", "Contact.way.mail")

    def test_an_entity_has_no_oneof(self) -> None:
        path = "proto/chaptersync/v1/member.proto"
        planted = "  // One of them.\n  oneof either {\n    string a = 8;  // A.\n  }\n"
        text = CLEAN[path].replace("  // The name.\n", planted + "  // The name.\n")
        self.expect(path, text, "proto-shape", "Member.either")

    def test_a_value_of_an_entity_has_no_map(self) -> None:
        path = "proto/chaptersync/v1/member.proto"
        text = CLEAN[path].replace(
            "// One way to reach a person.\nmessage Contact {\n",
            "// Depth.\nmessage Deep {\n  // Nested.\n  map<string, string> notes = 1;\n}\n\n"
            "// One way to reach a person.\nmessage Contact {\n  // Depth.\n  Deep deep = 9;\n",
        )
        self.expect(path, text, "proto-shape", "Deep.notes")

    def test_a_value_of_an_entity_is_no_struct(self) -> None:
        path = "proto/chaptersync/v1/member.proto"
        text = CLEAN[path].replace("optional string name", "google.protobuf.Struct name")
        self.expect(path, text, "proto-shape", "Struct")

    def test_files_are_formatted(self) -> None:
        self.assertIsNotNone(shutil.which("clang-format"), "run tools/setup")
        self.assertEqual(list(check.check_format(check.Tree(self.root))), [])
        path = "storage/core/merge.cc"
        self.write(path, CLEAN[path].replace("return 1;", "return  1 ;"))
        found = list(check.check_format(check.Tree(self.root)))
        self.assertEqual([(f.path, f.rule) for f in found], [(path, "format")])
        list(check.check_format(check.Tree(self.root), fix=True))
        self.assertEqual((self.root / path).read_text(encoding="utf-8"), CLEAN[path])

    def test_clang_looks_at_files_with_lock_annotations(self) -> None:
        # A stand-in, since clang itself is not installed everywhere.
        found = list(check.check_locks(check.Tree(self.root), True))
        self.assertEqual([f.rule for f in found], ["locks"], "no release build")
        self.write("node/queue.h", header("node/queue.h", "int size ABSL_GUARDED_BY(mutex);\n"))
        self.write("node/queue.cc", HEADER + '#include "node/queue.h"\n')
        self.write("node/plain.cc", HEADER)
        command = "/usr/bin/ccache c++ -O2 -Werror -I. -isystem gen -DV=1 -std=c++20 -o x.o -c f.cc"
        entries = [
            {"file": str(self.root / path), "command": command}
            for path in ("node/queue.cc", "node/plain.cc")
        ]
        self.write("build/release/compile_commands.json", json.dumps(entries))
        clang = self.root / "bin/clang++"
        clang.parent.mkdir()
        said = "for last; do :; done; echo \"$last:7:1: error: no lock: $*\" >&2; exit 1"
        clang.write_text(f"#!/bin/sh\n{said}\n", encoding="utf-8")
        clang.chmod(0o755)
        with unittest.mock.patch.dict(os.environ, {"PATH": f"{clang.parent}:{os.environ['PATH']}"}):
            found = list(check.check_locks(check.Tree(self.root), True))
        flags = "-fsyntax-only -Wthread-safety -Werror=thread-safety -I. -isystem gen -DV=1 -std=c++20"
        self.assertEqual(
            [str(f) for f in found], [f"node/queue.cc:7: [locks] no lock: {flags} node/queue.cc"]
        )

    def test_buf_is_asked_for_where_it_is_required(self) -> None:
        # A stand-in, since buf itself is not installed everywhere.
        self.write("proto/buf.yaml", "version: v2\n")
        buf = self.root / "tools/node_modules/@bufbuild/buf-any/bin/buf"
        buf.parent.mkdir(parents=True)
        buf.write_text("#!/bin/sh\necho 'proto/x.proto:3:1:Wrong.'\nexit 100\n", encoding="utf-8")
        buf.chmod(0o755)
        found = list(check.check_buf(check.Tree(self.root), True))
        self.assertEqual([str(f) for f in found], ["proto/x.proto:3: [buf] Wrong."])
        buf.unlink()
        if not shutil.which("buf"):
            found = list(check.check_buf(check.Tree(self.root), True))
            self.assertEqual([f.rule for f in found], ["buf"])

    def test_what_git_ignores_is_not_read(self) -> None:
        subprocess.run(["git", "init", "-q", self.root], check=True)
        self.write(".gitignore", "build/\n")
        self.write("build/left.cc", "no header\n")
        self.assertEqual(self.findings(), set())
        self.write("hub/new.cc", "no header\n")
        self.assertEqual(self.findings(), {("hub/new.cc", "header"), ("hub/new.cc", "named")})

    def test_the_program_reports_and_fails(self) -> None:
        command = [sys.executable, "-B", str(CHECK), "--root", str(self.root)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.write("hub/new.h", "no header\n")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("hub/new.h:1: [header]", done.stdout)


if __name__ == "__main__":
    unittest.main()
