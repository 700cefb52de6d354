// What a backend offers: one function slot per kernel, and the plain structs they take. A backend
// is one value of Kernels (cpp/kernels/backend.cpp per instruction set, cuda/backend.cu).
//
// Every pointer is to memory of the backend's device, but for packing, whose weights the host reads
// and writes, and for structs and lists of Branch, which are the caller's. Images are channels
// last; a "row" is one pixel's channels (or one sample's features), numbered over the whole batch.
// `add` means: add to the destination instead of overwriting it.
#pragma once

#include <cstdint>

#include "device.hpp"
#include "layers.hpp"
#include "rules.hpp"

namespace relprop {

// Which pixels of the source feed which pixels of the destination: each pixel of a grid reads some
// taps and writes one pixel. A convolution is one such grid, its adjoint one for each phase of the
// stride; a dense layer is a convolution of 1 x 1 images.
struct TapGrid {
    Image from; // the source images
    Image to;   // the destination images
    int groups = 1;
    const Pixel *taps = nullptr; // a tap reads `run` consecutive floats
    int tap_count = 0;
    // the least and the most of them along each axis, where who laid the grid said so
    Pixel least, most = {-1, -1, -1};
    Pixel size;                 // of the grid
    Pixel step = {1, 1, 1};     // pixel p reads from p * step + tap
    Pixel out_step = {1, 1, 1}; // and writes p * out_step + out
    Pixel out;
};

// A layer's contributions x w one by one, for neurons whose Z- is scarce beside Z+: what a
// difference or an approximate product says of it is not to be trusted.
struct Contributions {
    TapGrid grid; // the layer's forward product, which writes every pixel in its place
    int64_t n = 0;
    int run = 0;                     // channels read per tap and group
    const float *x = nullptr;        // [n, from]
    const float *weights = nullptr;  // of channel c, tap t and channel read k:
    const int64_t *tap_at = nullptr; // weights[c * channel_step + tap_at[t] + k * step]
    int64_t channel_step = 0, step = 0;
};

struct Message;

// An input whose contributions are its values, as those of a sum: it takes x s.
struct Branch {
    const float *x; // [rows, channels]
    float *out;     // [rows, channels]
    bool add;
    const Message *sent = nullptr; // what becomes of it then, as in Epilogue; null: nothing
};

// What the ledger is told of the neurons of a chunk: absorbed by the bias, by the stabilizer, and
// the sum of r and that of its magnitudes.
constexpr int64_t tally_sums = 4;

// The message of a linear layer, row by row: reads the relevance r of the outputs and the sums
// that belong to them, writes s+ over r and s- beside it, and tells the ledger of both.
struct Message {
    Rule rule;
    float *r = nullptr;     // [rows, channels]  in: relevance, out: s+
    float *s_neg = nullptr; // [rows, channels]  in: Z- (alpha_beta), out: s-; else unused
    // [period, channels]  sum, for epsilon and gamma with as much of the bias as the rule keeps;
    // null where not needed
    const float *z = nullptr;
    int64_t period = 0;            // rows of z before it repeats (w_square's sums), 0: never
    const float *bias = nullptr;   // [channels]
    const float *fan_in = nullptr; // [fan_period]  real inputs of each neuron; flat, distribute
    int64_t fan_period = 1;
    float *share = nullptr; // [rows, channels]  out: bias's share per real input; distribute
    float *tally = nullptr; // [rows, chunks, tally_sums]; null: no ledger
    int64_t chunks = 1;     // channel chunks that a row is cut into
    // alpha_beta: Z- is what z leaves of Z+ instead of s_neg's content, and summed from these where
    // that is little; null: s_neg has it
    const Contributions *contributions = nullptr;
    uint32_t *scarce =
        nullptr; // [rows, chunks]  out: those channels of the chunk, as bits; or null
    const Branch *branches = nullptr; // Kernels::message alone: who takes s+ while it is near
    int branch_count = 0;
    bool arrived = false; // s+ is there already: the branches alone are left to do
    // Kernels::message alone: the relevance, where it does not lie at r  [rows, given_stride]
    const float *given = nullptr;
    int64_t given_stride = 0;
};

enum class Part { all, positive, negative };

enum class EpilogueKind { forward, message, relevance };

// What becomes of a finished product, tile by tile.
struct Epilogue {
    EpilogueKind kind = EpilogueKind::forward;
    float *out = nullptr;          // [rows, channels]  forward, relevance
    const float *bias = nullptr;   // [channels]  forward; null: none
    float low = 0.0f, high = 0.0f; // forward: clamp where low < high (ReLU, ReLU6)
    const float *x = nullptr;      // [rows, channels]  relevance: out = x * product; null: product
    Part part = Part::all;         // relevance: of x, the rest counts as 0
    bool add = false;              // relevance
    // relevance: out is complete then, and takes the message of the layer that wrote x: epsilon's,
    // whose r is out and whose z is x
    bool sends = false;
    Message message; // message: the product is Z+ or the plain sum; or what is sent
};

// What becomes of the weights before they are multiplied: w, w+, w-, w scaled for gamma, w^2.
enum class Version { plain, positive, negative, gamma, square };

struct ProductSource {
    const float *data = nullptr;    // [n, from]
    const float *weights = nullptr; // packed by Kernels::pack; dense: as they are, all versions
    Version version = Version::plain;
};

RELPROP_HD Pixel moved(const Pixel &p, const Pixel &step, const Pixel &by) {
    return {p.z * step.z + by.z, p.y * step.y + by.y, p.x * step.x + by.x};
}

// Both products of every linear layer: for each pixel of the grid, the sum over sources and taps of
// source[tap] @ weights[tap].
struct Product {
    TapGrid grid;
    int64_t n = 0;
    ProductSource source[2];
    int sources = 0;
    bool selects = false;         // the second source meets the weights < 0, the first the others
    bool by_sign = false;         // relevance: the two sources are exchanged where x < 0
    float gamma = 0.0f;           // of the version that asks for it
    int run = 0;                  // floats read per tap and group
    const float *zeros = nullptr; // [run], and one panel more: what a tap outside the image reads
    // by Kernels::product_scratch, the first most_shared_tiles of them 0, as they are afterwards;
    // or null, where a device's product goes without
    float *scratch = nullptr;
    Epilogue epilogue;
};

// Tiles of a product that a device's blocks share: how many have finished counts a float of
// scratch.
constexpr int64_t most_shared_tiles = 1024;

// Where the weights of a layer lie, and the product that reads them: packed as its kernel on this
// backend wants them, they stand for [groups][tap_count][run][out].
struct Packing {
    int groups;
    int tap_count;
    int run;               // floats read per tap and group; 0: depthwise
    int out;               // channels written per group; depthwise: all
    int read;              // channels read per tap of the kernel: several may share one run
    const int64_t *tap_at; // [taps of the kernel]  where each lies
    int64_t group_step;    // floats between groups, channels read and channels written
    int64_t read_step;
    int64_t written_step;
    Version version;
    float gamma;
};

// The backward product of scarce neurons, contribution by contribution, in a layer of stride 1.
struct Scarce {
    Contributions contributions;
    const uint32_t *marked; // [rows, chunks] by Message
    float *s_neg;           // [rows, channels]  out: 0 where marked
    float *relevance;       // [n, from]
    bool add;
};

enum class Transform { copy, positive, negative, minus, one };

// A linear layer's source: T(x) with a border of zeros.
struct Prepare {
    Transform transform;
    int64_t n;
    Image image;
    Pixel before, after; // width of the border
    const float *x;      // [n, image]
    const float *minus;  // [channels]  transform minus: x - minus
    float *out;          // [n, image with its border]
};

// out = sum over the taps of the grid and the channels of the group of share: what flat and
// bias="distribute" hand down, the same to every real input.
struct Spread {
    TapGrid grid;
    int64_t n;
    const float *sums; // [n, pixels of from, groups]  by group_sums
    float *out;        // [n, to]
    bool add;
};

// The way back through a planar layer without groups and dilation, from what each pixel of its
// output hands to every tap of the kernel: the sums over the taps that read a pixel of the input.
struct Fold {
    Image from, to; // the layer's input and output
    Pixel kernel, stride, before;
    int64_t n;
    const float *handed; // [n, pixels of to, handed_channels]  to the taps of each channel
    Epilogue epilogue;   // relevance
};

RELPROP_HD int handed_channels(const Fold &p) { // whole fours, the last perhaps for nothing
    return ceil_div(p.from.channels * p.kernel.y * p.kernel.x, 4) * 4;
}

struct Pool {
    int64_t n;
    int channels;
    PoolAxis z, y, x;
    bool count_include_pad; // average pooling
    int divisor;            // average pooling: replaces the count where > 0
    const float *in;        // [n, z.size, y.size, x.size, channels]; null: average's gradient
    const float *r;         // [n, z.outputs, y.outputs, x.outputs, channels]; s for average
    float *result;          // forward: like r; relevance: like in
    bool add;
    const Message
        *sent; // max pooling's relevance: what becomes of it then, as in Epilogue, or null
};

// Each output row is a weighted sum of a few input rows, the same in every channel: interpolation.
struct Resample {
    int64_t n;
    int64_t from_rows, to_rows; // per sample
    int channels;
    int taps;
    const int32_t *index; // [to_rows, taps]  rows of the input
    const float *weight;  // [to_rows, taps]
    // the same from the input's side: row r goes to readers [offsets[r], offsets[r + 1])
    const int32_t *offsets;     // [from_rows + 1]
    const int32_t *reader;      // [to_rows * taps]  rows of the output, ascending
    const float *reader_weight; // [to_rows * taps]
    const float *in;            // [n, from_rows, channels]; null: the gradient
    const float *s;             // relevance: [n, to_rows, channels]
    float *result;              // forward: like s; relevance: like in
    bool add;
};

// y = scale x + shift per channel; relevance: r_in = x scale s, or scale s where x is null.
struct Affine {
    int64_t rows;
    int channels;
    const float *x;
    const float *scale; // [channels]
    const float *shift; // [channels]
    const float *s;     // relevance: [rows, channels]
    float *result;
    bool add;
};

// y = x base^-beta, base = k + alpha / (values of a whole window) * sum of squares in the window:
// `size` channels of a pixel, or `size` x `size` pixels of a channel.
struct LocalResponseNorm {
    int64_t n;
    Image image;
    bool within_channel;
    int size;
    float alpha, beta, k;
    const float *x;
    const float *s; // relevance by Taylor expansion, gradient: like x
    float *result;
    bool add;
};

// y = (x - mean) / deviation * weight + bias over each row; its deviation squared is the mean
// square of x - mean, plus epsilon; the mean counts as 0 unless `centred`.
struct RowNorm {
    int64_t rows;
    int width;
    bool centred;
    float epsilon;
    const float *x;      // [rows, width]
    const float *weight; // [width]; null: 1
    const float *bias;   // [width]; null: 0
    const float *s;      // relevance, where the deviation is a constant, and gradient: like x
    float *result;
    bool add;
};

// y = exp(x) / (sum of exp(x) over the row); relevance by its first-order Taylor terms.
struct RowSoftmax {
    int64_t rows;
    int width;
    const float *x; // [rows, width]  forward, relevance
    const float *y; // relevance, gradient: like x
    const float *r; // relevance, gradient: like x
    float *result;
    float *constant; // relevance: like x  out: what the expansion's constant takes of each r
    bool add;
};

// For each of `count` pairs of matrices: out = factor * times * (a @ b), times element by element.
struct MatrixProduct {
    int64_t count;
    int rows, depth, columns;
    const float *a; // [count, rows, depth], or [count, depth, rows] where turned
    const float *b; // [count, depth, columns], or [count, columns, depth] where turned
    bool a_turned, b_turned;
    float factor;
    const float *times; // like out; null: 1
    float *out;         // [count, rows, columns]
    bool add;
};

enum class Function {
    leaky_relu,
    elu,
    silu,
    gelu,
    gelu_tanh,
    sigmoid,
    tanh,
    hard_sigmoid,
    hard_swish,
    softplus,
    exp,
    power
};

// y = x < 0 ? slope x : x; the slopes repeat with a period, of one value or one for each channel.
struct Prelu {
    int64_t n; // floats
    int64_t period;
    const float *slope; // [period]
    const float *x;
    const float *r; // gradient: like x
    float *result;
    bool add;
};

// y = weight[id], one row of features for each id; relevance: the sum over the features.
struct Lookup {
    int64_t ids_count;
    int64_t vocabulary;
    int features;
    const float *weight; // [vocabulary, features]
    const float *ids;    // [ids_count]  whole numbers; one out of range makes NaN
    const float *r;      // relevance: [ids_count, features]
    float *result;       // forward: like r; relevance: like ids
    bool add;
};

// Equal blocks moved between two strided places: concatenation.
struct Blocks {
    int64_t count;
    int64_t size;
    const float *from;
    int64_t from_stride;
    float *to;
    int64_t to_stride;
    bool add;
};

// out[i] = index[i] >= 0 ? in[index[i]] : value, per sample and place, of `width` floats each;
// relevance goes the other way.
struct Gather {
    int64_t n;
    int64_t from_size; // floats per sample of the layer's input
    int64_t to_size;   // floats per sample of the layer's output
    int width;
    const int32_t *index; // [to_size / width]
    // the same from the input's side: place i goes to readers [offsets[i], offsets[i + 1])
    const int32_t *offsets; // [from_size / width + 1]
    const int32_t *reader;  // places of the output, ascending
    float value;
    const float *in;
    float *out;
    bool add;
};

// Sums over samples for the ledger: float64, in one order whatever the batch and who computes them.
struct Totals {
    int64_t n;
    int64_t size;
    const float *values; // [n, size]
    double *out;         // [n], one sum or two next to each other, every out_stride
    int64_t out_stride;
    double *scratch; // [n * totals_scratch(size)], the first n of them 0, as they are afterwards;
                     // a device's, the host needs none
};

// The same of what a step's messages told.
struct Tallies {
    int64_t n;
    int64_t count;      // of a sample
    const float *tally; // [n, count, tally_sums]
    double *absorbed;   // [n, 2] every absorbed_stride, added to: by bias, by stabilizer; or null
    int64_t absorbed_stride;
    double *totals; // [n, 2] every totals_stride, written: sum, sum of magnitudes; or null
    int64_t totals_stride;
    double *scratch; // [n * tallies_scratch(count)], like that of Totals
};

constexpr int64_t totals_part = 16384; // values that a device's block sums
constexpr int64_t totals_parts(int64_t size) { return (size + totals_part - 1) / totals_part; }
constexpr int64_t totals_scratch(int64_t size) { return 1 + 2 * totals_parts(size); }
constexpr int64_t tallies_scratch(int64_t count) {
    return 1 + tally_sums * totals_parts(tally_sums * count);
}

// Relevance by regions of the image and by channels: float64 sums, in one order whatever the batch
// and who computes them.
struct Regions {
    int64_t n;
    int64_t pixels; // of a sample
    int channels;
    int count;             // of regions
    const float *values;   // [n, channels, pixels]  channels first, as the user has them
    const int32_t *labels; // [n, pixels], or [pixels]  each pixel's region; -1: none
    bool shared_labels;    // by all samples
    double *sums; // [n, count, 3]  out, of the pixels' sums over channels: the sum, that of their
                  // positive part, the number of pixels
    double *channel_sums; // [n, channels]  out, over all pixels
    double *scratch;      // [n * regions_scratch(...)]; a device's, the host needs none
};

// Pixels that a device's block sums by itself: so many that there are few sums beside them.
constexpr int64_t regions_part(int count) {
    constexpr int64_t least = 8192, of_each = 64;
    return count * of_each > least ? count * of_each : least;
}
constexpr int64_t regions_parts(int64_t pixels, int count) {
    return (pixels + regions_part(count) - 1) / regions_part(count);
}
constexpr int64_t regions_scratch(int64_t pixels, int count, int channels) {
    return regions_parts(pixels, count) * (int64_t{3} * count + channels);
}

// What the relevance of a run begins with: the score of each sample's target, or 1, or the same at
// every place of a mask; 0 elsewhere.
struct Beginning {
    int64_t n;
    Image image;         // of the scores
    bool channels_first; // their order, and the mask's
    const float *scores; // [n, size]
    bool one;            // 1 instead of the score
    bool argmax;         // the target is the first of the largest scores
    int64_t *targets;    // [n]  in, in [0, size), or out where argmax; not read with a mask
    const uint8_t *mask; // [n, size]; null: targets
    float *relevance;    // [n, size]  channels last
};

struct Kernels {
    const char *name;
    const Device *device; // null: the host
    int device_index;

    // linear layers; packing, a matter of the host, returns the floats needed, and writes them
    // unless packed is null
    int64_t (*pack)(const Packing &, const float *weights, float *packed);
    void (*product)(const Product &, Stream);
    // floats that a product may use, whatever its batch; 0: none
    int64_t (*product_scratch)(const Product &);
    void (*depthwise)(const Product &, Stream); // groups == channels, weights [tap_count][channels]
    // layers of single pixels with one tap and one group, there and back: both read the weights
    // [out][in] where they lie, and not a float beyond
    void (*dense)(const Product &, Stream);
    void (*dense_adjoint)(const Product &, Stream);
    // whether a product that selects takes less than one with each part of the weights; the taps of
    // this grid and of the next are the host's
    bool (*selects)(const TapGrid &, int run);
    // the same by Winograd's filtering; winograd_outputs says with how many outputs per side of a
    // tile, 0 where the plain product serves better or the taps, in row order, are not 3 x 3 with
    // stride 1
    int (*winograd_outputs)(const TapGrid &, int run);
    int64_t (*winograd_pack)(const Packing &, int outputs, const float *weights, float *packed);
    void (*winograd)(const Product &, int outputs, Stream);
    void (*prepare)(const Prepare &, Stream);
    // per row and group the sum of share [rows, channels]
    void (*group_sums)(const float *share, int64_t rows, int channels, int groups, float *sums,
                       Stream);
    void (*spread)(const Spread &, Stream);
    // whether a layer's way back takes less by one product with all taps, and fold, than by one
    // for each phase of its stride
    bool (*folds)(const Fold &);
    void (*fold)(const Fold &, Stream);
    int (*chunks)(int groups, int out); // that product and message cut a row into
    void (*message)(const Message &, int64_t rows, int channels, Stream);
    bool (*scarce)(const Scarce &, Stream); // whether any was marked, and relevance is written

    // pooling
    void (*max_pool)(const Pool &, Stream);
    void (*max_pool_relevance)(const Pool &, Stream);
    void (*average_pool)(const Pool &, Stream);
    void (*average_pool_relevance)(const Pool &, Stream);

    // interpolation; relevance: r_in = x * (adjoint of s)
    void (*resample)(const Resample &, Stream);
    void (*resample_relevance)(const Resample &, Stream);

    // merges: n floats each
    void (*add)(const float *a, const float *b, float *out, int64_t n, bool clamp, // by a ReLU
                Stream);
    void (*multiply)(const float *a, const float *b, float *out, int64_t n, bool add, Stream);
    void (*maximum)(const float *a, const float *b, float *out, int64_t n, Stream);
    // where x is the maximum y, takes what relevance r is left there
    void (*maximum_relevance)(const float *x, const float *y, float *r, float *out, int64_t n,
                              bool add, Stream);
    void (*blocks)(const Blocks &, Stream);

    // normalisation
    void (*affine)(const Affine &, Stream);
    void (*affine_relevance)(const Affine &, Stream);
    void (*local_response_norm)(const LocalResponseNorm &, Stream);
    void (*local_response_norm_sums)(const LocalResponseNorm &, Stream);
    void (*local_response_norm_relevance)(const LocalResponseNorm &, Stream);
    void (*local_response_norm_gradient)(const LocalResponseNorm &, Stream);

    void (*layer_norm)(const RowNorm &, Stream);
    void (*layer_norm_relevance)(const RowNorm &, Stream);
    void (*layer_norm_gradient)(const RowNorm &, Stream);

    // attention
    void (*softmax)(const RowSoftmax &, Stream);
    void (*softmax_relevance)(const RowSoftmax &, Stream);
    void (*softmax_gradient)(const RowSoftmax &, Stream);
    void (*matrix_product)(const MatrixProduct &, Stream);

    // elementwise and movement; a gradient is the derivative times r, which it may overwrite
    void (*activation)(Function, float parameter, const float *x, float *y, int64_t n, Stream);
    void (*activation_gradient)(Function, float parameter, const float *x, const float *r,
                                float *out, int64_t n, bool add, Stream);
    void (*clip)(float low, float high, const float *x, float *y, int64_t n, Stream); // ReLU, ReLU6
    // y: the clipped values, which lie between the bounds where the derivative is 1
    void (*clip_gradient)(float low, float high, const float *y, const float *r, float *out,
                          int64_t n, bool add, Stream);
    void (*prelu)(const Prelu &, Stream);
    void (*prelu_gradient)(const Prelu &, Stream);
    void (*lookup)(const Lookup &, Stream);
    void (*lookup_relevance)(const Lookup &, Stream);
    void (*carry)(const float *from, float scale, float *to, int64_t n, bool add, Stream);
    void (*fill)(float value, float *to, int64_t n, Stream);
    void (*gather)(const Gather &, Stream);
    void (*gather_relevance)(const Gather &, Stream);
    void (*to_channels_last)(const float *in, float *out, int64_t n, Image, Stream);
    void (*to_channels_first)(const float *in, float *out, int64_t n, Image, Stream);

    // ledger: writes each sample's sum and its sum of magnitudes
    void (*totals)(const Totals &, Stream);
    void (*sum_tallies)(const Tallies &, Stream);
    // adds the sum over `count` places, or over all where places is null
    void (*book)(const Totals &, const int32_t *places, int64_t count, Stream);

    void (*regions)(const Regions &, Stream);

    // both ends of the passes: what relevance begins with, and the least index of n values that is
    // not finite, or -1
    void (*begin)(const Beginning &, Stream);
    void (*check_finite)(const float *values, int64_t n, int64_t *bad, Stream);

    // the ceiling of a CPU's products: multiply-adds in registers on every thread; returns how many
    int64_t (*multiply_adds)(int64_t rounds, Stream);
};

// The best backend that this machine runs, or the one that RELPROP_ISA names.
const Kernels &cpu_kernels(); // throws std::runtime_error where RELPROP_ISA cannot run here

// What RELPROP_PRODUCT asks for, so that each way of computing can be tested by itself: winograd2
// and winograd4 are outputs per side of a tile, plain is 0, and -1 leaves the choice to the
// kernels.
int wanted_winograd(); // throws std::runtime_error where it is something else

// How exactly a GPU's products are computed: float32's precision, or with factors rounded to 10
// bits (TF32) or 7 (bfloat16); sums are float32 throughout.
enum class Precision { float32, tf32, bf16 };

// Throws std::runtime_error where relprop was built without CUDA or no such GPU is there.
const Kernels &cuda_kernels(int device, Precision precision);

} // namespace relprop
