"""SchemaGen: what every row must look like, inferred from the training split or given and checked."""

import json
from collections.abc import Sequence

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import ExampleStatistics, Schema

from components.files import content_hash, describe_missing, find, nearest, open_file
from components.rows import Columns, column_keys, wanted
from modules.errors import TextrailError

FILE_NAME = "schema.pbtxt"


@component
def SchemaGen(statistics: InputArtifact[ExampleStatistics], schema: OutputArtifact[Schema], columns: Parameter[str],
              curated: Parameter[str] = "", fingerprint: Parameter[str] = ""):
    """Writes the schema of a text data set.

    Args:
        statistics: with a split "train".
        schema: what is written.
        columns: JSON that names the features by what they are for, as `rows.wanted` takes it.
        curated: path of a schema to take as it is once checked; "" infers one.
        fingerprint: of the curated file, for the cache: `schema_fingerprint(curated)`.

    Raises:
        TextrailError: see `infer_schema` and `read_curated`.
    """
    from tfx.components.statistics_gen import stats_artifact_utils
    from tfx.utils import io_utils

    features = wanted(json.loads(columns))
    if curated:
        result = read_curated(curated, features)
    else:
        result = infer_schema(stats_artifact_utils.load_statistics(statistics, "train").proto(), features)
    io_utils.write_pbtxt_file(f"{schema.uri}/{FILE_NAME}", result)


def schema_fingerprint(curated: str | None) -> str:
    """Changes when a curated schema's content does; "" without one.

    Raises:
        TextrailError: there is no such file.
    """
    if not curated:
        return ""
    files = find(curated)
    if not files:
        raise TextrailError(f"a schema at {curated} (data.schema_file)", describe_missing(curated),
                            "Correct the path, or leave data.schema_file out to infer a schema.")
    return content_hash(files[0])


def infer_schema(statistics: statistics_pb2.DatasetFeatureStatisticsList, columns: Columns) -> schema_pb2.Schema:
    """A schema from the statistics of the training split.

    Each column: one string in every row. The label's are those seen, sorted; the others take any string. Other features
    keep what TFDV infers.

    Args:
        statistics: of the training split.
        columns: what is read.

    Raises:
        TextrailError: a feature is missing or no string, or the label takes one value, or too many to be classes.
    """
    import tensorflow_data_validation as tfdv

    schema = tfdv.infer_schema(statistics, infer_feature_shape=False)
    for name in columns.names:
        _require_string(schema, name, "the training split", columns)
        feature = tfdv.get_feature(schema, name)
        feature.presence.min_fraction, feature.presence.min_count = 1.0, 1
        feature.shape.dim.add(size=1)
        _drop_domain(schema, feature)
    if label := columns.name("label"):
        tfdv.set_domain(schema, label, schema_pb2.StringDomain(name=label, value=_classes(statistics, label)))
    return schema


def _classes(statistics: statistics_pb2.DatasetFeatureStatisticsList, label: str) -> list[str]:
    """The values of a label, sorted.

    Raises:
        TextrailError: there is one, or too many to be classes.
    """
    from tensorflow_data_validation.constants import LARGE_BYTES_PLACEHOLDER

    counts = label_counts(statistics, label)
    unique = next(f for f in statistics.datasets[0].features if _name(f) == label).string_stats.unique
    if unique > len(counts):
        raise TextrailError(f"a label {label!r} with some hundred classes at most", f"{unique} different values",
                            "Name the column with the class names in data.label.")
    if LARGE_BYTES_PLACEHOLDER in counts:
        raise TextrailError(f"class names of at most 1,024 bytes in {label!r}",
                            f"{counts[LARGE_BYTES_PLACEHOLDER]:,} rows with longer ones",
                            "Name the column with the class names in data.label.")
    check_classes(list(counts), label)
    return sorted(counts)


def check_classes(names: Sequence[str], label: str) -> None:
    """Refuses what cannot be the classes of a label that no curated schema describes.

    Raises:
        TextrailError: there are fewer than two, or one has several lines.
    """
    if len(names) < 2:
        raise TextrailError(f"a label {label!r} with at least two classes in the training split",
                            f"{len(names)} ({', '.join(names)})",
                            "Check data.label and the rows of the training split.")
    for name in names:
        if len(name.splitlines()) != 1:
            raise TextrailError(f"class names of one line in {label!r}", repr(name), "Rename the class in the data.")


def read_curated(path: str, columns: Columns) -> schema_pb2.Schema:
    """Reads a schema that someone keeps by hand, as it is.

    Args:
        path: a text-format `schema.pbtxt`, local or a URI.
        columns: the features it must have; a label with a domain of at least two classes.

    Raises:
        TextrailError: it cannot be read or lacks any of these.
    """
    schema = schema_pb2.Schema()
    try:
        with open_file(path) as file:
            text_format.Parse(file.read().decode("utf-8"), schema)
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise TextrailError(f"a schema in protobuf's text format in {path}", f"something else ({error})",
                            "Start from the one a run without data.schema_file writes, under SchemaGen.") from error
    for name in columns.names:
        _require_string(schema, name, path, columns)
    label = columns.name("label")
    if label and len(class_names(schema, label)) < 2:
        raise TextrailError(f"a string domain with at least two classes for the label {label!r} in {path}",
                            f"{class_names(schema, label)}", "Add the class names to its string_domain.")
    return schema


def class_names(schema: schema_pb2.Schema, label: str) -> list[str]:
    """The values of the label's domain, in the order that gives each class its index; empty without a domain."""
    feature = next(feature for feature in schema.feature if feature.name == label)
    if feature.domain:
        return next(list(domain.value) for domain in schema.string_domain if domain.name == feature.domain)
    return list(feature.string_domain.value)


def label_counts(statistics: statistics_pb2.DatasetFeatureStatisticsList, label: str) -> dict[str, int]:
    """How many rows of a split have each label, sorted by label: {"negative": 500, "positive": 512}."""
    feature = next((f for f in statistics.datasets[0].features if _name(f) == label), None)
    buckets = feature.string_stats.rank_histogram.buckets if feature else ()
    return {bucket.label: round(bucket.sample_count) for bucket in sorted(buckets, key=lambda b: b.label)}


def _name(feature: statistics_pb2.FeatureNameStatistics) -> str:
    return feature.name or ".".join(feature.path.step)


def _require_string(schema: schema_pb2.Schema, name: str, where: str, columns: Columns) -> None:
    types = {feature.name: feature.type for feature in schema.feature}
    if name not in types:
        raise TextrailError(f"a feature {name!r} in {where}", f"only {', '.join(types)}{nearest(name, types)}",
                            f"Correct {column_keys(columns)}.")
    if types[name] != schema_pb2.BYTES:
        raise TextrailError(f"strings in the feature {name!r} of {where}",
                            f"the type {schema_pb2.FeatureType.Name(types[name])}",
                            f"Write it as strings, or name another column in {column_keys(columns)}.")


def _drop_domain(schema: schema_pb2.Schema, feature: schema_pb2.Feature) -> None:
    """Lets a feature hold any string."""
    kind = feature.WhichOneof("domain_info")
    if kind == "domain":
        schema.string_domain.remove(next(d for d in schema.string_domain if d.name == feature.domain))
    if kind:
        feature.ClearField(kind)
