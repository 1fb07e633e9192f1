"""What a release says of itself beside its files: model card, bill of materials, attestations.

Equal inputs give equal bytes, wherever and whenever: the documents know no clock and no chance.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.contract.contract import Contract
from pipeline.evidence.read import Evidence
from pipeline.files import write_json, write_text
from pipeline.params import Params
from pipeline.release.documents import attestations
from pipeline.release.documents.bom import BOM_FILE, bom
from pipeline.release.documents.card import CARD_FILE, card
from pipeline.release.documents.material import gather
from pipeline.release.documents.notices import write_notices
from pipeline.verdict.decide import Verdict


def documents(
    release: Path, contract: Contract, verdict: Verdict, evidence: Evidence, params: Params
) -> None:
    """Add the documents to a release folder that is being built, before its files are listed.

    Raises:
        IntegrityError: a delivered file is damaged or carries no contract.
    """
    material = gather(release, contract, verdict, evidence, params)
    write_text(release / CARD_FILE, card(material))
    write_json(release / BOM_FILE, bom(material))
    stated = release / attestations.FOLDER
    write_json(stated / attestations.VERDICT_FILE, attestations.test_result(material))
    write_json(stated / attestations.PROVENANCE_FILE, attestations.provenance(material))
    write_notices(release, material)
