"""Every text of the pages is there in Chinese, with the same placeholders."""

from __future__ import annotations

import re

from django.conf import settings
from django.utils.translation import override

from portal.web import phrases
from portal.web.translations import catalogue_path, extracted, read

ROOT = settings.BASE_DIR


def placeholders(text: str) -> set[str]:
    return set(re.findall(r"%\((\w+)\)[sd]", text)) | set(re.findall(r"{(\w*)}", text))


def test_every_text_has_a_chinese_translation_with_the_same_placeholders() -> None:
    translated = read(catalogue_path(ROOT, "zh_Hans"), "zh_Hans")
    wanted = extracted(ROOT)
    untranslated, different = [], []
    for message in wanted:
        if not message.id:
            continue
        single = message.id[0] if isinstance(message.id, tuple) else message.id
        found = translated.get(single, message.context)
        texts = [] if found is None or found.fuzzy else list(found.string) if isinstance(found.string, tuple) else [found.string]
        if not texts or not all(texts):
            untranslated.append(single)
        elif any(placeholders(text) != placeholders(single) for text in texts):
            different.append(single)
    assert len(wanted) > 100
    assert not untranslated
    assert not different


def test_the_catalogue_holds_nothing_that_no_page_says() -> None:
    wanted = {(m.context, m.id[0] if isinstance(m.id, tuple) else m.id) for m in extracted(ROOT)}
    kept = {(m.context, m.id[0] if isinstance(m.id, tuple) else m.id) for m in read(catalogue_path(ROOT, "zh_Hans"), "zh_Hans")}
    assert kept - wanted <= {(None, "")}


def test_a_known_sentence_keeps_its_parts_in_chinese(compiled_catalogue: None) -> None:
    with override("zh-hans"):
        assert phrases.known("alice asked for 4 workers instead of 2.") == "alice 将工作进程数从 2 改为 4。"
        two = "no node has 96 CPU (the largest node has 2 CPU) or 8 nvidia.com/gpu (the largest node has 1 nvidia.com/gpu)"
        assert phrases.known(two) == "没有节点有 96 CPU（最大的节点有 2 CPU）或 8 nvidia.com/gpu（最大的节点有 1 nvidia.com/gpu）"
        assert phrases.known("0/3 nodes are available: 3 Insufficient cpu.") == "0/3 nodes are available: 3 Insufficient cpu."
    with override("en"):
        assert phrases.known("Queued.") == "Queued."


def test_every_sentence_that_the_domain_writes_for_a_move_is_known() -> None:
    from portal.domain.services.events import _SAYS

    assert set(_SAYS.values()) <= set(phrases.PHRASES)


def test_every_step_title_of_the_observer_is_known() -> None:
    from k8s.status import STEPS

    assert {title for _, title in STEPS} <= set(phrases.PHRASES)
