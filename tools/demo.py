#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# The demonstration behind tools/demo: a hub, Italy and Toronto as processes on
# this computer, sample data, edits made apart, and what became of them. Each
# line marked "ok" was checked; the first that fails ends it with exit 1.
"""Shows two chapters and headquarters editing apart and agreeing again."""

import argparse
import csv
import json
import os
import re
import subprocess
import sys
from typing import Any, Dict, List, NoReturn, Optional, Set

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from federation import Failure, Federation, fresh_folder, wait_until  # noqa: E402

HQ, ITALY, TORONTO = "hq", "italy", "toronto"
PLACES = {HQ: "Headquarters", ITALY: "Italy", TORONTO: "Toronto"}
MEMBERS = 5000
SECOND_FILE_MEMBERS = 20000


def title(text: str) -> None:
    """A heading."""
    print(f"\n== {text} ==", flush=True)


def say(text: str) -> None:
    """A line of the story."""
    print(f"   {text}", flush=True)


def check(condition: bool, text: str) -> None:
    """A line that was checked. Raises Failure where it does not hold."""
    if not condition:
        raise Failure(f"this did not come out: {text}")
    print(f"ok {text}", flush=True)


def shown_name(member: Dict[str, Any]) -> str:
    """How a person would call the member."""
    names = member.get("names", {})
    first = names.get("legal") or next(iter(names.values()), {})
    return str(first.get("display") or first.get("full") or member["id"])


def writer(write: Dict[str, Any]) -> str:
    """Where and when somebody wrote."""
    where = {"hq": "headquarters"}.get(write["chapter"], write["chapter"].capitalize() or "a replica not known here")
    return f"at {where}, {write['time'][11:23]} UTC"


class Demo:
    """The story, step by step."""

    def __init__(self, federation: Federation, samples: str) -> None:
        self.federation = federation
        self.samples = samples

    def show_value(self, name: str, noun: str, identity: str, field: str) -> Optional[Any]:
        """What a replica holds in a field, by its path."""
        value: Any = self.federation.row(name, noun, "get", identity)
        for part in field.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    def ids(self, name: str, noun: str, *where: str) -> Set[str]:
        """The ids of a noun's records at a replica."""
        return {row["id"] for row in self.federation.rows(name, noun, "list", "--limit", "1000000", *where)}

    def begin(self) -> None:
        """Three processes."""
        f = self.federation
        title("Headquarters and two chapters")
        f.make_hub()
        f.must(HQ, "chapters", "add", ITALY, "--name", "Italy Chapter", "--country", "IT")
        f.must(HQ, "chapters", "add", TORONTO, "--name", "Toronto Chapter", "--country", "CA")
        for chapter in (ITALY, TORONTO):
            f.make_node(chapter, chapter)
        say("Headquarters runs the hub; Italy and Toronto joined, each with an invitation.")
        check(all(d.running() for d in f.daemons.values()), "three processes serve, each on its own database")

    def load(self) -> None:
        """Sample data in, and out to who may hold it."""
        f = self.federation
        title("Headquarters imports its files")
        for noun, file in (("members", "graduates.csv"), ("events", "events.csv")):
            outcome = f.row(HQ, noun, "import", os.path.join(self.samples, file))
            say(f"{file}: {outcome['new']} new, {outcome['changed']} changed, {outcome['same']} the same, "
                f"{outcome['refused']} refused")
            check(outcome["refused"] == 0 and outcome["new"] > 0, f"every row of {file} went in")
        again = f.row(HQ, "members", "import", os.path.join(self.samples, "graduates.csv"))
        check(again["new"] == 0 and again["changed"] == 0 and again["same"] == MEMBERS,
              "importing the file again finds nothing to do")
        f.sync_all([ITALY, TORONTO])
        for chapter in (ITALY, TORONTO):
            want = self.ids(HQ, "members", "--where", f"chapter={chapter}")
            have = self.ids(chapter, "members")
            check(have == want and len(have) > 100, f"{PLACES[chapter]} holds its {len(have)} members and no other")
            events = {row["id"] for row in f.rows(HQ, "events", "list", "--limit", "1000")
                      if row.get("audience") == "AUDIENCE_EVERYBODY" or chapter in row.get("hosts", {})}
            have = self.ids(chapter, "events")
            check(have == events, f"{PLACES[chapter]} holds the {len(have)} events for everybody or of its own")

    def edit_apart(self) -> None:
        """The lines are cut and everybody goes on working."""
        f = self.federation
        title("Both chapters lose their line, and everybody goes on working")
        for chapter in (ITALY, TORONTO):
            f.must(chapter, "sync", "pause")
        phones = [row for row in f.rows(ITALY, "members", "list", "--limit", "1000")
                  if row.get("contacts", {}).get("home", {}).get("kind") == "CONTACT_KIND_PHONE"]
        self.member = phones[0]["id"]
        self.name = shown_name(phones[0])
        self.hq_phone, self.italy_phone = "+14165550123", "+39060000123"
        f.must(HQ, "members", "set", self.member, f"contacts.home.value={self.hq_phone}", "employer=Globex")
        f.must(ITALY, "members", "set", self.member, f"contacts.home.value={self.italy_phone}", "job_title=Partner")
        say(f"{self.name}: headquarters notes the number {self.hq_phone} and a new employer,")
        say(f"Italy, without knowing, the number {self.italy_phone} and a new job title.")
        gala = [row for row in f.rows(HQ, "events", "list", "--limit", "1000")
                if {"hq", TORONTO} <= set(row.get("hosts", {})) and row.get("audience") == "AUDIENCE_MEMBERS"]
        self.event = gala[0]["id"]
        f.must(HQ, "events", "set", self.event, "venue=Harbour Hall", "capacity=120")
        f.must(TORONTO, "events", "set", self.event, "venue=Lakeside Pavilion", "start=2026-11-14T18:00:00")
        say("The event that headquarters and Toronto host together gets a venue from each, a capacity from")
        say("headquarters and a new start from Toronto.")
        mine = sorted(self.ids(TORONTO, "members"))
        self.deleted, self.moving = mine[0], mine[1]
        f.must(HQ, "members", "set", self.deleted, "notes=Asked for the autumn programme")
        f.must(TORONTO, "members", "delete", self.deleted)
        say("Toronto deletes a member; headquarters had just written a note about the same person.")
        f.must(HQ, "members", "set", self.moving, f"chapter={ITALY}")
        self.moving_name = shown_name(f.row(HQ, "members", "get", self.moving))
        say(f"{self.moving_name} moves from Toronto to Italy.")
        check(self.show_value(ITALY, "members", self.member, "contacts.home.value") == self.italy_phone
              and self.show_value(HQ, "members", self.member, "contacts.home.value") == self.hq_phone,
              "nobody waits for anybody: each works on its own copy")

    def meet(self) -> None:
        """The lines are back."""
        f = self.federation
        title("The lines are back")
        for chapter in (ITALY, TORONTO):
            f.must(chapter, "sync", "resume")
        f.sync_all([ITALY, TORONTO])
        at = {place: self.show_value(place, "members", self.member, "contacts.home.value") for place in (HQ, ITALY)}
        check(at[HQ] == at[ITALY] == self.italy_phone,
              f"{self.name} has one number everywhere, the later one: {at[HQ]}")
        both = [(self.show_value(p, "members", self.member, "employer"),
                 self.show_value(p, "members", self.member, "job_title")) for p in (HQ, ITALY)]
        check(both[0] == both[1] == ("Globex", "Partner"), "the other fields, changed on one side each, are all kept")
        event = [f.row(p, "events", "get", self.event) for p in (HQ, TORONTO)]
        fields = ("venue", "capacity", "start")
        check([event[0].get(x) for x in fields] == [event[1].get(x) for x in fields],
              f"the event is the same at both hosts: {', '.join(str(event[0].get(x)) for x in fields)}")
        check(f.row(HQ, "members", "get", self.deleted)["deleted"]
              and f.row(TORONTO, "members", "get", self.deleted)["deleted"],
              "the later decision, Toronto's deletion, stands; the note is kept in the conflict log")
        gone = f.ctl(TORONTO, "members", "get", self.moving)[0]
        check(gone == 3 and self.show_value(ITALY, "members", self.moving, "chapter") == ITALY,
              f"Italy has {self.moving_name} now, and Toronto has let the record go")

    def conflicts(self) -> None:
        """What lost, and taking it back."""
        f = self.federation
        title("What lost is kept: the conflict log")
        log = {place: f.rows(place, "conflicts", "list", "--state", "all") for place in (HQ, ITALY, TORONTO)}
        for row in log[HQ]:
            lost = "its deletion" if row["field"] == "" else json.dumps(row["lost"], ensure_ascii=False)
            say(f"{row['noun']} {row['record'][:8]} {row['field'] or '(record)'}: lost {lost}, "
                f"written {writer(row['lost_write'])}")
        found = {(row["record"], row["field"]) for row in log[HQ]}
        want = {(self.member, "contacts.home"), (self.event, "venue"), (self.deleted, "notes")}
        check(found == want and len(log[HQ]) == len(want), "exactly the three edits that lost unseen are logged, once each")
        for chapter in (ITALY, TORONTO):
            check({row["id"] for row in log[chapter]}
                  == {row["id"] for row in log[HQ] if row["record"] in self.ids(chapter, row["noun"], "--deleted")},
                  f"{PLACES[chapter]} sees the same entries for the records that it holds")
        phone = next(row for row in log[ITALY] if row["record"] == self.member)
        title("An officer in Italy takes the lost number back")
        f.must(ITALY, "conflicts", "settle", phone["id"], "--take")
        f.sync_all([ITALY, TORONTO])
        check(all(self.show_value(p, "members", self.member, "contacts.home.value") == self.hq_phone for p in (HQ, ITALY)),
              f"{self.hq_phone} is back, at Italy and at headquarters")
        check(all(f.row(p, "conflicts", "show", phone["id"])["state"] == "settled" for p in (HQ, ITALY)),
              "and the entry is settled at both")
        why = f.row(HQ, "members", "why", self.member, "contacts.home")
        say(f"why? {json.dumps(why['value'], ensure_ascii=False)} was written by {why['write']['actor']} "
            f"{writer(why['write'])};")
        for beaten in why["beat"]:
            say(f"     it beat {json.dumps(beaten['value'], ensure_ascii=False)}, written {writer(beaten['write'])}")
        check(why["write"]["chapter"] == ITALY and len(why["beat"]) == 1, "`why` names who decided, where and when")

    def kill_hub(self) -> None:
        """A power failure in the middle of an import."""
        f = self.federation
        title("The hub's power fails in the middle of an import")
        path = os.path.join(self.samples, "second.csv")
        subprocess.run([os.path.join(os.path.dirname(os.path.abspath(__file__)), "sample_data"), "--seed", "2", "--members",
                        str(SECOND_FILE_MEMBERS), "--out", os.path.join(self.samples, "more")],
                       check=True, stdout=subprocess.DEVNULL)
        with open(os.path.join(self.samples, "more", "graduates.csv"), encoding="utf-8", newline="") as source, \
                open(path, "w", encoding="utf-8", newline="") as target:
            rows = csv.DictReader(source)
            assert rows.fieldnames is not None
            out = csv.DictWriter(target, rows.fieldnames)
            out.writeheader()
            for row in rows:
                out.writerow({**row, "id": "second-" + row["id"]})
        before = f.row(HQ, "status")["records"]["members"]
        importer = subprocess.Popen([f.program("chapterctl"), "--data", f.data(HQ), "--output", "json", "members",
                                     "import", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        wait_until(lambda: f.row(HQ, "status")["records"]["members"] > before + 2000, "the import's first rows")
        f.daemons[HQ].kill()
        error = importer.communicate(timeout=60)[1]
        check(importer.returncode == 5, "the import says that it could not go on")
        said = json.loads(error.decode().strip().splitlines()[-1])["error"]["message"]
        say(said)
        line = re.search(r"up to line (\d+)", said)
        acknowledged = int(line.group(1)) - 1 if line else 0
        f.daemons[HQ].start()
        after = f.row(HQ, "status")["records"]["members"]
        check(after - before >= acknowledged > 0,
              f"started again, the hub holds {after - before} of the new rows: none of the {acknowledged} that it had "
              "acknowledged is missing")
        rest = f.row(HQ, "members", "import", path)
        check(rest["new"] == SECOND_FILE_MEMBERS - (after - before) and rest["same"] == after - before
              and rest["refused"] == 0, f"running the import again adds the other {rest['new']}")
        total = f.row(HQ, "status")["records"]["members"]
        check(total == before + SECOND_FILE_MEMBERS, f"{total} members in all")
        f.sync_all([ITALY, TORONTO])
        for chapter in (ITALY, TORONTO):
            check(self.ids(chapter, "members") == self.ids(HQ, "members", "--where", f"chapter={chapter}"),
                  f"{PLACES[chapter]} has its part of them")


def fail(text: str) -> NoReturn:
    """Says why, and ends with exit 1."""
    print(f"\ntools/demo: {text}", file=sys.stderr)
    sys.exit(1)


def main() -> None:
    """Runs the story."""
    parser = argparse.ArgumentParser(prog="tools/demo", description=__doc__)
    parser.add_argument("--programs", required=True, help="the folder of the programs")
    parser.add_argument("--folder", default="build/demo", help="where the data goes; emptied first")
    parser.add_argument("--stay", action="store_true", help="leave everything running")
    args = parser.parse_args()
    folder = fresh_folder(os.path.abspath(args.folder))
    samples = os.path.join(folder, "samples")
    subprocess.run([os.path.join(os.path.dirname(os.path.abspath(__file__)), "sample_data"), "--seed", "1", "--members", str(MEMBERS),
                    "--out", samples], check=True, stdout=subprocess.DEVNULL)
    with Federation(args.programs, os.path.join(folder, "replicas")) as federation:
        demo = Demo(federation, samples)
        try:
            for step in (demo.begin, demo.load, demo.edit_apart, demo.meet, demo.conflicts, demo.kill_hub):
                step()
        except Failure as failure:
            fail(str(failure))
        print("\nAll of it came out as it must.")
        if args.stay:
            print("\nIt is still running. Talk to it with, for instance:\n")
            ctl = os.path.relpath(federation.program("chapterctl"))
            for name, words in ((ITALY, "status"), (HQ, "conflicts list --state all"), (TORONTO, "events list"),
                                (ITALY, "watch members")):
                print(f"  {ctl} --data {os.path.relpath(federation.data(name))} {words}")
            print("\nEnd it with Ctrl-C.", flush=True)
            try:
                for daemon in federation.daemons.values():
                    if daemon.process is not None:
                        daemon.process.wait()
            except KeyboardInterrupt:
                print()
        for name in (ITALY, TORONTO, HQ):
            code = federation.daemons[name].stop()
            if code not in (0, -2):
                fail(f"{name} ended with exit {code}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("\ntools/demo: interrupted; its processes are ended", file=sys.stderr)
        sys.exit(130)
