"""EncoderImporter: a pretrained BERT of any known layout, checked and written as an artifact in HuggingFace's."""

import json

from tfx.dsl.component.experimental.annotations import OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component

from components.artifacts import Encoder
from components.encoder_sources import import_encoder


@component
def EncoderImporter(encoder: OutputArtifact[Encoder], source: Parameter[str], sha256: Parameter[str] = "",
                    lower_case: Parameter[str] = "", config: Parameter[str] = "", preprocessing: Parameter[str] = "",
                    opaque: Parameter[int] = 0, fingerprint: Parameter[str] = ""):
    """Brings an encoder into the pipeline.

    Args:
        encoder: what is written.
        source: as `encoder.source` of the settings.
        sha256: expected of the weights; "" checks that of minilm only.
        lower_case: "true" or "false"; "" follows the encoder's own flag.
        config: a config.json or bert_config.json for weights without one.
        preprocessing: where the vocabulary is, where it does not lie with the weights.
        opaque: longest input, in tokens, of a SavedModel that is taken as it is; 0 takes a BERT apart.
        fingerprint: of the source, for the cache: `encoder_fingerprint(source)`.

    Raises:
        TextrailError: see `import_encoder`.
    """
    import_encoder(source, encoder.uri, sha256, json.loads(lower_case) if lower_case else None, config, preprocessing,
                   bool(opaque), opaque)
