"""Reading XML elements by name, and XML as JSON."""

from xml.etree.ElementTree import fromstring

from worker.rest.elements import fields_of, first_of, plain, tag_of


def test_names_match_in_any_case_and_without_their_namespace() -> None:
    """A namespace and the case of a tag make no difference to what is found; of equal names the first counts."""
    row = fromstring(
        '<a:Row xmlns:a="urn:x"><a:Start_Time> 10:00 </a:Start_Time><end/><START_TIME>11:00</START_TIME></a:Row>'
    )
    assert tag_of(row) == "row"
    assert fields_of(row) == {"start_time": "10:00"}
    assert first_of(fields_of(row), "starttime", "start_time") == "10:00"
    assert first_of(fields_of(row), "end") is None


def test_everything_of_an_element_is_kept_as_json() -> None:
    """Attributes, repeated names, nested elements and the text beside them all have their place."""
    row = fromstring('<r x="1">\n <t>a</t><t>b</t><t k="v">c</t><Deep><d>1</d> tail</Deep><e/></r>')
    assert plain(row) == {
        "@x": "1",
        "t": ["a", "b", {"@k": "v", "#text": "c"}],
        "Deep": {"d": "1"},
        "e": "",
    }


def test_a_document_nested_without_end_is_cut_off() -> None:
    """Beyond twenty levels what is inside becomes one text, so that depth costs neither stack nor meaning."""
    made = plain(fromstring("<r>" + "<n>" * 3000 + "text" + "</n>" * 3000 + "</r>"))
    depth = 0
    while isinstance(made, dict):
        made = made["n"]
        depth += 1
    assert (depth, made) == (21, "text")
