"""Clients of hub inference endpoints work unchanged; every error has one form."""

from __future__ import annotations

import base64
import json
import re
import shutil
import signal
import subprocess
from pathlib import Path

import httpx2
import pytest

from device_tests.web import packages
from pipeline.inference.classify import Classifier
from pipeline.inference.select import select_artifact
from tests.inference.images import encoded, oriented, pixels, png_bomb, scan_bomb
from tests.inference.served import Served
from tests.waiting import until

JS = Path(__file__).parent / "js"
JSON = "application/json"


@pytest.fixture(scope="module")
def server(released, tmp_path_factory):
    log = tmp_path_factory.mktemp("serve") / "log"
    limits = ("--max-body", "1", "--max-pixels", "4", "--timeout", "20")
    with Served(released, log, "--runtime", "onnx", *limits) as found:
        yield found


@pytest.fixture(scope="module")
def classifier(released):
    return Classifier(select_artifact(None, "onnx", released / "artifacts").path)


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(oriented(6))
    return path


def pairs(answer):
    return [(entry["label"], entry["score"]) for entry in answer]


def expected(classifier, content, *arguments):
    return [(p.label, p.score) for p in classifier.classify(content, *arguments)]


def test_raw_bytes_and_json_answer_as_predict_does(server, classifier, photo):
    content = photo.read_bytes()
    for headers in ({}, {"content-type": "image/jpeg"}, {"content-type": "IMAGE/JPEG; q=1"}):
        answer = server.post(content, **headers)
        assert answer.status_code == 200
        assert pairs(answer.json()) == expected(classifier, content)
    text = base64.b64encode(content).decode()
    for inputs in (text, f"data:image/jpeg;base64,{text}"):
        body = json.dumps({"inputs": inputs}).encode()
        answer = server.post(body, **{"content-type": "application/json; charset=utf-8"})
        assert pairs(answer.json()) == expected(classifier, content)


@pytest.mark.parametrize("transform", ["softmax", "sigmoid", "none"])
def test_parameters_choose_how_many_classes_and_what_a_score_is(server, classifier, transform):
    content = encoded("PNG")
    body = {
        "inputs": base64.b64encode(content).decode(),
        "parameters": {"top_k": 3, "function_to_apply": transform},
        "options": {"wait_for_model": True},  # older clients send it
    }
    answer = server.post(json.dumps(body).encode(), **{"content-type": JSON})
    assert pairs(answer.json()) == expected(classifier, content, 3, transform)


def test_curl_with_data_binary_works_as_with_the_hub(server, classifier, photo):
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not here")
    command = [curl, "-sS", "--data-binary", f"@{photo}", f"{server.address}/"]
    ran = subprocess.run(command, capture_output=True, check=True)
    assert pairs(json.loads(ran.stdout)) == expected(classifier, photo.read_bytes())


def test_the_hubs_python_client_works_with_another_address(server, classifier, photo):
    from huggingface_hub import InferenceClient

    content = photo.read_bytes()
    named = f"{server.address}/models/model-0.1.0"
    for client in (
        InferenceClient(model=server.address),
        InferenceClient(base_url=server.address),
        InferenceClient(model=named),
    ):
        for image in (content, photo, str(photo)):
            found = client.image_classification(image)
            assert [(e.label, e.score) for e in found] == expected(classifier, content)
    found = client.image_classification(photo, top_k=2, function_to_apply="sigmoid")
    assert [(e.label, e.score) for e in found] == expected(classifier, content, 2, "sigmoid")


def test_the_hubs_javascript_client_works_with_another_address(server, classifier, photo, tmp_path):
    if not shutil.which("npm"):
        pytest.skip("node is not here")
    modules = packages.install(tmp_path, JS)
    script = modules.parent / "client.mjs"
    shutil.copy(JS / script.name, script)
    command = ["node", str(script), server.address, str(photo)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    for answer in json.loads(ran.stdout):
        assert pairs(answer) == expected(classifier, photo.read_bytes())


def post_json(value, **parameters):
    return json.dumps({"inputs": value, "parameters": parameters}).encode(), JSON


IMAGE = base64.b64encode(encoded("PNG")).decode()
REFUSED = {
    "an empty body": (b"", "image/png", 400, "the body is empty"),
    "no image": (b"hello", "image/png", 415, "not an image in a known format"),
    "a cut image": (encoded("PNG")[:150], "", 400, "damaged or cut short"),
    "a bomb of pixels": (png_bomb(), "image/png", 413, "more than 4000000 pixels"),
    "one over the limit": (png_bomb(2500, 2000), "", 413, "2500 x 2000 pixels"),
    "a bomb of scans": (scan_bomb(5000, 500), "image/jpeg", 413, "scans"),
    "too many bytes": (bytes(1_000_001), "image/png", 413, "larger than 1 MB"),
    "far too many bytes": (bytes(9_000_000), "image/png", 413, "larger than 1 MB"),
    "text": (b"hello", "text/plain", 415, "not text/plain"),
    "a form": (b"--x\r\n", "multipart/form-data; boundary=x", 415, "not multipart/form-data"),
    "wrong JSON": (b'{"inputs": ', JSON, 400, "the body is not JSON"),
    "JSON of another form": (b"[1]", JSON, 422, "the body"),
    "no inputs": (b"{}", JSON, 422, "inputs: Field required"),
    "no base64": (*post_json("%%%%"), 400, "not base64"),
    "no ASCII": (*post_json("\u00e9" * 8), 400, "not base64"),
    "base64 of no image": (*post_json("aaaa"), 415, "not an image"),
    "no classes": (*post_json(IMAGE, top_k=0), 422, "parameters.top_k"),
    "another function": (*post_json(IMAGE, function_to_apply="max"), 422, "function_to_apply"),
    "a misspelt parameter": (*post_json(IMAGE, topk=1), 422, "parameters.topk"),
    "deep JSON": (b"[" * 500_000, JSON, 400, "the body is not JSON"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_request_gets_its_status_and_words(server, name):
    body, kind, status, words = REFUSED[name]
    answer = server.post(body, **({"content-type": kind} if kind else {}))
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}
    assert words in answer.json()["error"]


def test_other_paths_and_methods_are_refused_in_the_same_form(server):
    for method, path, status in (
        ("GET", "/", 405),
        ("PUT", "/models/model-0.1.0", 405),
        ("POST", "/health", 405),
        ("POST", "/models/another", 404),
        ("GET", "/nothing", 404),
    ):
        answer = httpx2.request(method, f"{server.address}{path}")
        assert answer.status_code == status
        assert set(answer.json()) == {"error"}
        assert ("allow" in answer.headers) == (status == 405)


def test_health_readiness_and_what_is_served_can_be_asked(server, released):
    assert httpx2.get(f"{server.address}/health").json() == {"status": "ok"}
    assert httpx2.get(f"{server.address}/ready").json() == {"status": "ready"}
    info = httpx2.get(f"{server.address}/info").json()
    chosen = select_artifact(None, "onnx", released / "artifacts")
    assert info["sha256"] == chosen.sha256
    assert info["release"] == "model-0.1.0"
    assert info["contract"]["artefact"]["format"] == "onnx"


def test_the_page_of_docs_loads_nothing_from_another_host(server):
    page = httpx2.get(f"{server.address}/docs")
    assert page.status_code == 200
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert loaded
    for path in loaded:
        assert path.startswith("/")
        assert httpx2.get(f"{server.address}{path}").status_code == 200


def test_the_description_names_bodies_and_errors_and_its_references_resolve(server):
    description = httpx2.get(f"{server.address}/openapi.json").json()
    post = description["paths"]["/"]["post"]
    assert set(post["requestBody"]["content"]) == {"image/*", JSON}
    assert {"200", "400", "408", "413", "415", "422", "503"} <= set(post["responses"])
    for reference in re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(description)):
        place = description
        for key in reference.split("/"):
            place = place[key]


def test_while_it_loads_it_lives_but_is_not_ready(released, tmp_path):
    with Served(released, tmp_path / "log", "--workers", "1", wait=False) as server:
        assert httpx2.get(f"{server.address}/health").status_code == 200
        for answer in (httpx2.get(f"{server.address}/ready"), server.post(encoded("PNG"))):
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert "loaded" in answer.json()["error"] or "loading" in answer.json()["error"]
        assert server.stop(signal.SIGINT) == 0


def test_each_request_is_logged_with_status_and_time_and_nothing_of_the_image(server):
    def posts() -> list[str]:
        return [line for line in server.words().splitlines() if " POST / 200 " in line]

    before = len(posts())
    server.post(encoded("PNG", pixels()), path="/?a=%0Aforged 200")
    until(lambda: len(posts()) > before)  # a line is written after its answer
    assert re.search(r"127\.0\.0\.1 POST / 200 \d+\.\d ms$", posts()[-1]), posts()[-1]
    assert "forged" not in server.words()
