"""Caffe's files: the messages of its published caffe.proto that matter here, and their readers.

The schema below is written as in a .proto file (labels left out mean optional) and becomes message
classes when this module is imported. Network descriptions (.prototxt) are read against the whole
of it, weights (.caffemodel) against the few fields at its end, so that fields that a fork of Caffe
numbered differently do not matter there.
"""

from __future__ import annotations

import math
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from google.protobuf import descriptor_pool, message_factory, text_format
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.message import DecodeError, Message

from relprop.graph import Array, Shape

LONGEST_TEXT = 16 << 20
LARGEST_WEIGHTS = (2 << 30) - 1
"""Limits in bytes; the second one is protobuf's own."""

SCHEMA = """
enum Phase { TRAIN = 0; TEST = 1; }
enum Share { STRICT = 0; PERMISSIVE = 1; }
enum Engine { DEFAULT = 0; CAFFE = 1; CUDNN = 2; }
enum Variance { FAN_IN = 0; FAN_OUT = 1; AVERAGE = 2; }
enum Normalization { FULL = 0; VALID = 1; BATCH_SIZE = 2; NONE = 3; }
enum Backend { LEVELDB = 0; LMDB = 1; }
enum Norm { L1 = 1; L2 = 2; }
enum Pool { MAX = 0; AVE = 1; STOCHASTIC = 2; }
enum Round { CEIL = 0; FLOOR = 1; }
enum Region { ACROSS_CHANNELS = 0; WITHIN_CHANNEL = 1; }
enum Eltwise { PROD = 0; SUM = 1; MAX = 2; }
enum Reduction { SUM = 1; ASUM = 2; SUMSQ = 3; MEAN = 4; }
enum V1Type {
  NONE = 0; ACCURACY = 1; BNLL = 2; CONCAT = 3; CONVOLUTION = 4; DATA = 5; DROPOUT = 6;
  EUCLIDEAN_LOSS = 7; FLATTEN = 8; HDF5_DATA = 9; HDF5_OUTPUT = 10; IM2COL = 11; IMAGE_DATA = 12;
  INFOGAIN_LOSS = 13; INNER_PRODUCT = 14; LRN = 15; MULTINOMIAL_LOGISTIC_LOSS = 16; POOLING = 17;
  RELU = 18; SIGMOID = 19; SOFTMAX = 20; SOFTMAX_LOSS = 21; SPLIT = 22; TANH = 23;
  WINDOW_DATA = 24; ELTWISE = 25; POWER = 26; SIGMOID_CROSS_ENTROPY_LOSS = 27; HINGE_LOSS = 28;
  MEMORY_DATA = 29; ARGMAX = 30; THRESHOLD = 31; DUMMY_DATA = 32; SLICE = 33; MVN = 34;
  ABSVAL = 35; SILENCE = 36; CONTRASTIVE_LOSS = 37; EXP = 38; DECONVOLUTION = 39;
}

message Net {
  string name = 1; repeated string input = 3; repeated BlobShape input_shape = 8;
  repeated int32 input_dim = 4; bool force_backward = 5; NetState state = 6; bool debug_info = 7;
  repeated Layer layer = 100; repeated V1Layer layers = 2;
}
message NetState { Phase phase = 1 [default = TEST]; int32 level = 2; repeated string stage = 3; }
message NetStateRule {
  Phase phase = 1; int32 min_level = 2; int32 max_level = 3; repeated string stage = 4;
  repeated string not_stage = 5;
}
message Layer {
  string name = 1; string type = 2; repeated string bottom = 3; repeated string top = 4;
  Phase phase = 10; repeated float loss_weight = 5; repeated ParamSpec param = 6;
  repeated bool propagate_down = 11; repeated NetStateRule include = 8;
  repeated NetStateRule exclude = 9; TransformationParameter transform_param = 100;
  LossParameter loss_param = 101; AccuracyParameter accuracy_param = 102;
  BatchNormParameter batch_norm_param = 139; BiasParameter bias_param = 141;
  ClipParameter clip_param = 148; ConcatParameter concat_param = 104;
  ContrastiveLossParameter contrastive_loss_param = 105;
  ConvolutionParameter convolution_param = 106; CropParameter crop_param = 144;
  DataParameter data_param = 107; DropoutParameter dropout_param = 108;
  DummyDataParameter dummy_data_param = 109;
  EltwiseParameter eltwise_param = 110; ELUParameter elu_param = 140;
  ExpParameter exp_param = 111;
  FlattenParameter flatten_param = 135; HDF5DataParameter hdf5_data_param = 112;
  HDF5OutputParameter hdf5_output_param = 113; HingeLossParameter hinge_loss_param = 114;
  ImageDataParameter image_data_param = 115; InfogainLossParameter infogain_loss_param = 116;
  InnerProductParameter inner_product_param = 117; InputParameter input_param = 143;
  LRNParameter lrn_param = 118; MemoryDataParameter memory_data_param = 119;
  PermuteParameter permute_param = 202; PoolingParameter pooling_param = 121;
  PowerParameter power_param = 122; PReLUParameter prelu_param = 131;
  ReductionParameter reduction_param = 136;
  ReLUParameter relu_param = 123; ReshapeParameter reshape_param = 133;
  ScaleParameter scale_param = 142;
  SigmoidParameter sigmoid_param = 124; SliceParameter slice_param = 126;
  SoftmaxParameter softmax_param = 125; SwishParameter swish_param = 147;
  TanHParameter tanh_param = 127; WindowDataParameter window_data_param = 129;
}
message V1Layer {
  string name = 4; V1Type type = 5; repeated string bottom = 2; repeated string top = 3;
  repeated NetStateRule include = 32; repeated NetStateRule exclude = 33;
  repeated string param = 1001; repeated Share blob_share_mode = 1002;
  repeated float blobs_lr = 7; repeated float weight_decay = 8; repeated float loss_weight = 35;
  TransformationParameter transform_param = 36; LossParameter loss_param = 42;
  AccuracyParameter accuracy_param = 27; ConcatParameter concat_param = 9;
  ContrastiveLossParameter contrastive_loss_param = 40;
  ConvolutionParameter convolution_param = 10; DataParameter data_param = 11;
  DropoutParameter dropout_param = 12; DummyDataParameter dummy_data_param = 26;
  EltwiseParameter eltwise_param = 24; ExpParameter exp_param = 41;
  HDF5DataParameter hdf5_data_param = 13;
  HDF5OutputParameter hdf5_output_param = 14; HingeLossParameter hinge_loss_param = 29;
  ImageDataParameter image_data_param = 15; InfogainLossParameter infogain_loss_param = 16;
  InnerProductParameter inner_product_param = 17; LRNParameter lrn_param = 18;
  MemoryDataParameter memory_data_param = 22; PoolingParameter pooling_param = 19;
  PowerParameter power_param = 21;
  ReLUParameter relu_param = 30; SigmoidParameter sigmoid_param = 38;
  SliceParameter slice_param = 31; SoftmaxParameter softmax_param = 39;
  TanHParameter tanh_param = 37; WindowDataParameter window_data_param = 20;
}

message BlobShape { repeated int64 dim = 1; }
message ParamSpec {
  string name = 1; Share share_mode = 2; float lr_mult = 3; float decay_mult = 4;
}
message FillerParameter {
  string type = 1; float value = 2; float min = 3; float max = 4; float mean = 5; float std = 6;
  int32 sparse = 7; Variance variance_norm = 8;
}

message BatchNormParameter {
  bool use_global_stats = 1; float moving_average_fraction = 2; float eps = 3 [default = 1e-5];
}
message BiasParameter {
  int32 axis = 1 [default = 1]; int32 num_axes = 2 [default = 1]; FillerParameter filler = 3;
}
message ClipParameter { float min = 1; float max = 2; }
message ConcatParameter { int32 axis = 2 [default = 1]; uint32 concat_dim = 1 [default = 1]; }
message ConvolutionParameter {
  uint32 num_output = 1; bool bias_term = 2 [default = true]; repeated uint32 pad = 3;
  repeated uint32 kernel_size = 4; repeated uint32 stride = 6; repeated uint32 dilation = 18;
  uint32 pad_h = 9; uint32 pad_w = 10; uint32 kernel_h = 11; uint32 kernel_w = 12;
  uint32 stride_h = 13; uint32 stride_w = 14; uint32 group = 5 [default = 1];
  FillerParameter weight_filler = 7; FillerParameter bias_filler = 8; Engine engine = 15;
  int32 axis = 16 [default = 1]; bool force_nd_im2col = 17;
}
message CropParameter { int32 axis = 1 [default = 2]; repeated uint32 offset = 2; }
message DropoutParameter { float dropout_ratio = 1; }
message EltwiseParameter {
  Eltwise operation = 1 [default = SUM]; repeated float coeff = 2; bool stable_prod_grad = 3;
}
message ELUParameter { float alpha = 1 [default = 1]; }
message ExpParameter {
  float base = 1 [default = -1]; float scale = 2 [default = 1]; float shift = 3;
}
message FlattenParameter { int32 axis = 1 [default = 1]; int32 end_axis = 2 [default = -1]; }
message InnerProductParameter {
  uint32 num_output = 1; bool bias_term = 2 [default = true]; FillerParameter weight_filler = 3;
  FillerParameter bias_filler = 4; int32 axis = 5 [default = 1]; bool transpose = 6;
}
message InputParameter { repeated BlobShape shape = 1; }
message LRNParameter {
  uint32 local_size = 1 [default = 5]; float alpha = 2 [default = 1];
  float beta = 3 [default = 0.75]; Region norm_region = 4; float k = 5 [default = 1];
  Engine engine = 6;
}
message PermuteParameter { repeated uint32 order = 1; }
message PoolingParameter {
  Pool pool = 1; uint32 pad = 4; uint32 pad_h = 9; uint32 pad_w = 10; uint32 kernel_size = 2;
  uint32 kernel_h = 5; uint32 kernel_w = 6; uint32 stride = 3 [default = 1]; uint32 stride_h = 7;
  uint32 stride_w = 8; Engine engine = 11; bool global_pooling = 12; Round round_mode = 13;
}
message PowerParameter {
  float power = 1 [default = 1]; float scale = 2 [default = 1]; float shift = 3;
}
message PReLUParameter { FillerParameter filler = 1; bool channel_shared = 2; }
message ReductionParameter {
  Reduction operation = 1 [default = SUM]; int32 axis = 2; float coeff = 3 [default = 1];
}
message ReLUParameter { float negative_slope = 1; Engine engine = 2; }
message ReshapeParameter {
  BlobShape shape = 1; int32 axis = 2; int32 num_axes = 3 [default = -1];
}
message ScaleParameter {
  int32 axis = 1 [default = 1]; int32 num_axes = 2 [default = 1]; FillerParameter filler = 3;
  bool bias_term = 4; FillerParameter bias_filler = 5;
}
message SigmoidParameter { Engine engine = 1; }
message SliceParameter {
  int32 axis = 3 [default = 1]; repeated uint32 slice_point = 2; uint32 slice_dim = 1 [default = 1];
}
message SoftmaxParameter { Engine engine = 1; int32 axis = 2 [default = 1]; }
message SwishParameter { float beta = 1 [default = 1]; }
message TanHParameter { Engine engine = 1; }

message TransformationParameter {
  float scale = 1; bool mirror = 2; uint32 crop_size = 3; string mean_file = 4;
  repeated float mean_value = 5; bool force_color = 6; bool force_gray = 7;
}
message DataParameter {
  string source = 1; uint32 batch_size = 4; uint32 rand_skip = 7; Backend backend = 8;
  float scale = 2; string mean_file = 3; uint32 crop_size = 5; bool mirror = 6;
  bool force_encoded_color = 9; uint32 prefetch = 10;
}
message DummyDataParameter {
  repeated FillerParameter data_filler = 1; repeated BlobShape shape = 6; repeated uint32 num = 2;
  repeated uint32 channels = 3; repeated uint32 height = 4; repeated uint32 width = 5;
}
message HDF5DataParameter { string source = 1; uint32 batch_size = 2; bool shuffle = 3; }
message HDF5OutputParameter { string file_name = 1; }
message ImageDataParameter {
  string source = 1; uint32 batch_size = 4; uint32 rand_skip = 7; bool shuffle = 8;
  uint32 new_height = 9; uint32 new_width = 10; bool is_color = 11; float scale = 2;
  string mean_file = 3; uint32 crop_size = 5; bool mirror = 6; string root_folder = 12;
}
message MemoryDataParameter {
  uint32 batch_size = 1; uint32 channels = 2; uint32 height = 3; uint32 width = 4;
}
message WindowDataParameter {
  string source = 1; float scale = 2; string mean_file = 3; uint32 batch_size = 4;
  uint32 crop_size = 5; bool mirror = 6; float fg_threshold = 7; float bg_threshold = 8;
  float fg_fraction = 9; uint32 context_pad = 10; string crop_mode = 11; bool cache_images = 12;
  string root_folder = 13;
}
message AccuracyParameter { uint32 top_k = 1; int32 axis = 2; int32 ignore_label = 3; }
message ContrastiveLossParameter { float margin = 1; bool legacy_version = 2; }
message HingeLossParameter { Norm norm = 1; }
message InfogainLossParameter { string source = 1; int32 axis = 2; }
message LossParameter {
  int32 ignore_label = 1; bool normalize = 2; Normalization normalization = 3;
}

message Weights { repeated V1LayerWeights layers = 2; repeated LayerWeights layer = 100; }
message LayerWeights { bytes name = 1; repeated Blob blobs = 7; }
message V1LayerWeights { bytes name = 4; repeated Blob blobs = 6; }
message Blob {
  BlobShape shape = 7; repeated bytes data = 5; repeated bytes double_data = 8;
  int32 num = 1; int32 channels = 2; int32 height = 3; int32 width = 4;
}
"""
# A blob's values are packed floats on the wire; as bytes they become an array without a loop.

_SCALARS = {
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
    "float": FieldDescriptorProto.TYPE_FLOAT,
    "int32": FieldDescriptorProto.TYPE_INT32,
    "int64": FieldDescriptorProto.TYPE_INT64,
    "string": FieldDescriptorProto.TYPE_STRING,
    "uint32": FieldDescriptorProto.TYPE_UINT32,
}
_PACKAGE = "relprop.caffe"


def _file(schema: str) -> FileDescriptorProto:
    """The schema as protobuf describes files to itself."""
    file = FileDescriptorProto(name="relprop/caffe.proto", package=_PACKAGE, syntax="proto2")
    blocks = re.findall(r"(message|enum) (\w+) {(.*?)}", schema, re.DOTALL)
    enums = {name for kind, name, _ in blocks if kind == "enum"}
    for kind, name, body in blocks:
        if kind == "message":
            _add_fields(file.message_type.add(name=name), body, enums)
        else:
            # Names of an enum's values must be unique around it, hence a message around each.
            enum = file.message_type.add(name=f"{name}Enum").enum_type.add(name=name)
            for value, number in re.findall(r"(\w+) = (\d+);", body):
                enum.value.add(name=value, number=int(number))
    return file


def _add_fields(message: DescriptorProto, body: str, enums: set[str]) -> None:
    pattern = r"(repeated )?(\w+) (\w+) = (\d+)(?: \[default = (\S+)\])?;"
    for repeated, kind, name, number, default in re.findall(pattern, body):
        field = message.field.add(name=name, number=int(number))
        field.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
        if kind in _SCALARS:
            field.type = _SCALARS[kind]
        elif kind in enums:
            field.type, field.type_name = field.TYPE_ENUM, f".{_PACKAGE}.{kind}Enum.{kind}"
        else:
            field.type, field.type_name = field.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
        if default:
            field.default_value = default


def _classes(*names: str) -> Iterator[Any]:
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(_file(SCHEMA).SerializeToString())
    for name in names:
        yield message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


Net, Weights = _classes("Net", "Weights")


# --- Readers -----------------------------------------------------------------------------------


class Description(NamedTuple):
    """A network as its prototxt describes it."""

    net: Message
    complaint: str
    """Where the file goes beyond the schema, "" where it does not."""


def read_description(path: Path) -> Description:
    """Read a .prototxt; unknown fields are skipped, ``complaint`` names the first.

    Raises
    ------
    ValueError
        If the file is no text in protobuf's text format.
    """
    data = _read(path, LONGEST_TEXT)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no text: the order is (prototxt, caffemodel).") from None
    try:
        return Description(text_format.Parse(text, Net()), "")
    except (text_format.ParseError, RecursionError) as error:
        complaint = str(error)
    try:
        net = text_format.Parse(text, Net(), allow_unknown_field=True)
    except (text_format.ParseError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as a Caffe network: {error}") from None
    return Description(net, complaint)


def read_weights(path: Path) -> dict[str, list[Array]]:
    """Read the blobs of each layer of a .caffemodel, by the layer's name.

    Raises
    ------
    ValueError
        If the file is truncated, damaged or no caffemodel at all.
    """
    data = _read(path, LARGEST_WEIGHTS)
    if data.startswith(b"\x89HDF"):
        raise ValueError(f"{path} holds HDF5; only binary protobuf files can be read.")
    try:
        saved = Weights.FromString(data)
    except DecodeError as error:
        raise ValueError(f"{path} is truncated, damaged or no caffemodel: {error}") from None
    layers: dict[str, list[Array]] = {}
    for layer in (*saved.layers, *saved.layer):
        name = layer.name.decode("utf-8", "replace")
        if not layer.blobs:
            continue
        if name in layers:
            raise ValueError(f"{path} holds weights of two layers called {name!r}.")
        try:
            layers[name] = [_array(blob) for blob in layer.blobs]
        except ValueError as error:
            raise ValueError(f"{path}: layer {name!r}: {error}") from None
    return layers


def _read(path: Path, limit: int) -> bytes:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} is not a file.")
    if status.st_size > limit:
        raise ValueError(f"{path} has {status.st_size} bytes; at most {limit} can be read.")
    return path.read_bytes()


def _array(blob: Any) -> Array:
    kind, parts = ("<f8", blob.double_data) if blob.double_data else ("<f4", blob.data)
    raw = b"".join(parts)
    shape: Shape = (blob.num, blob.channels, blob.height, blob.width)
    if blob.HasField("shape"):
        shape = tuple(blob.shape.dim)
    if min(shape, default=1) < 0 or len(raw) != math.prod(shape) * np.dtype(kind).itemsize:
        raise ValueError(f"a blob of shape {shape} comes with {len(raw)} bytes of values.")
    with np.errstate(over="ignore"):
        values = np.frombuffer(raw, kind).astype(np.float32).reshape(shape)
    if not np.isfinite(values).all():
        raise ValueError(f"a blob of shape {shape} holds NaN or infinite values.")
    return values
