// Plan: one method per step, each checking its arguments, and run.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <tuple>

#include "arrays.hpp"
#include "device_arrays.hpp"
#include "plan.hpp"
#include "registers.hpp"
#include "steps/attention.hpp"
#include "steps/embedding.hpp"
#include "steps/linear.hpp"
#include "steps/merge.hpp"
#include "steps/move.hpp"
#include "steps/norm.hpp"
#include "steps/pointwise.hpp"
#include "steps/pool.hpp"
#include "steps/resample.hpp"

namespace relprop {
namespace {

using Extent = std::tuple<int, int, int, int>;   // depth, height, width, channels
using Triple = std::tuple<int, int, int>;        // one for each of depth, height and width
using Sides = std::array<std::array<int, 2>, 3>; // before and after, for each of them

Image image_of(const Extent &extent) {
    const auto [depth, height, width, channels] = extent;
    int64_t size = 1;
    for (int axis : {depth, height, width, channels}) {
        if (axis < 1)
            throw std::invalid_argument("image must be positive along every axis.");
        size *= axis;
        if (size > std::numeric_limits<int32_t>::max())
            throw std::invalid_argument("image must hold fewer than 2^31 values.");
    }
    return {depth, height, width, channels};
}

// Every tensor that a step reads, checked to exist and, but for -1, to have the size it expects.
void check_input(const Plan &plan, int input, int64_t size) {
    if (input < 0 || input >= plan.tensors())
        throw std::invalid_argument("input must name a tensor of the plan, not " +
                                    std::to_string(input) + ".");
    if (plan.tensor(input).image.size() != size)
        throw std::invalid_argument("input has " + std::to_string(plan.tensor(input).image.size()) +
                                    " values per sample, the step needs " + std::to_string(size) +
                                    ".");
}

Pixel positive(const char *name, const Triple &of) {
    const auto [z, y, x] = of;
    if (z < 1 || y < 1 || x < 1)
        throw std::invalid_argument(std::string(name) + " must be >= 1.");
    return {z, y, x};
}

int add_input(Plan &plan, const Extent &image, bool channels_first) {
    return plan.add_input(image_of(image), channels_first);
}

int windows(int size, int kernel, int stride, int before, int after, int dilation, bool ceil_mode) {
    const int64_t padded = static_cast<int64_t>(size) + before + after;
    const int64_t window = static_cast<int64_t>(dilation) * (kernel - 1) + 1;
    // Rounded up, a window that is too large by less than a stride is one all the same.
    const int64_t span = padded - window + (ceil_mode ? stride - 1 : 0);
    if (before < 0 || after < 0 || span < 0)
        throw std::invalid_argument(
            "padding must be >= 0 and the window must fit the padded image.");
    int64_t count = span / stride + 1;
    if (ceil_mode && (count - 1) * stride >= static_cast<int64_t>(size) + before)
        --count;
    if (std::max(padded, (count - 1) * stride + window) > std::numeric_limits<int32_t>::max())
        throw std::invalid_argument("the padded image and the last window must end before 2^31 in "
                                    "each direction.");
    return static_cast<int>(count);
}

// A convolution from `from` to `to`, or where `transposed` its adjoint, which reads `to`.
int add_linear(Plan &plan, int input, const Extent &from, const Extent &to, const py::array &weight,
               const py::object &bias, const Triple &stride, const Sides &padding,
               const Triple &dilation, int groups, const Rule &rule, bool transposed, bool blocks,
               bool input_nonnegative, bool supported,
               std::optional<std::tuple<float, float>> clamp, const py::object &low,
               const py::object &high, bool channels_first) {
    if (weight.ndim() != 5 || groups < 1)
        throw std::invalid_argument("weight must have 5 axes and groups must be >= 1.");
    Conv conv;
    conv.from = image_of(from);
    conv.to = image_of(to);
    conv.kernel = {static_cast<int>(weight.shape(2)), static_cast<int>(weight.shape(3)),
                   static_cast<int>(weight.shape(4))};
    conv.stride = positive("stride", stride);
    conv.dilation = positive("dilation", dilation);
    conv.before = {padding[0][0], padding[1][0], padding[2][0]};
    conv.after = {padding[0][1], padding[1][1], padding[2][1]};
    conv.groups = groups;
    const auto outputs = [&conv](int Image::*size, int Pixel::*axis) {
        return windows(conv.from.*size, conv.kernel.*axis, conv.stride.*axis, conv.before.*axis,
                       conv.after.*axis, conv.dilation.*axis, false);
    };
    if (conv.to.depth != outputs(&Image::depth, &Pixel::z) ||
        conv.to.height != outputs(&Image::height, &Pixel::y) ||
        conv.to.width != outputs(&Image::width, &Pixel::x))
        throw std::invalid_argument("to_image does not follow from from_image and the geometry.");
    const Image in = transposed ? conv.to : conv.from, out = transposed ? conv.from : conv.to;
    check_input(plan, input, in.size());
    Surroundings around;
    around.input_nonnegative = input_nonnegative;
    around.supported = supported;
    if (clamp)
        std::tie(around.low, around.high) = *clamp;
    const std::span<const float> weights(read<float>(weight, "weight", shape_of(weight)),
                                         static_cast<size_t>(weight.size()));
    auto step = std::make_unique<Linear>(plan.kernels(), conv, transposed, weights,
                                         owner_of(weight), copy(bias, "bias", {out.channels}), rule,
                                         around, copy(low, "low", {in.channels}),
                                         copy(high, "high", {in.channels}));
    if (step->reads_in_place() && weight.writeable())
        throw std::invalid_argument(
            "weight must not be writeable: some layers read it where it is.");
    return plan.add_step(std::move(step), {input}, {out, channels_first}, blocks);
}

// Kernels look some taps ahead of the last one.
constexpr int most_dilation = 1 << 28;

// A maximum over padding alone would be no number.
bool every_window_is_real(const PoolAxis &axis) {
    for (int output = 0; output < axis.outputs; ++output) {
        const Window window = window_at(axis, output);
        if (window.begin >= window.end)
            return false;
    }
    return true;
}

int add_pool(Plan &plan, const std::string &kind, int input, const Extent &from, const Extent &to,
             const Triple &kernel, const Triple &stride, const Sides &padding,
             const Triple &dilation, bool ceil_mode, bool adaptive, bool count_include_pad,
             int divisor, std::optional<float> epsilon, bool blocks) {
    const Image in = image_of(from), out = image_of(to);
    check_input(plan, input, in.size());
    if (in.channels != out.channels)
        throw std::invalid_argument("pooling keeps the number of channels.");
    PoolGeometry geometry;
    const Pixel size = positive("kernel", kernel), pace = positive("stride", stride),
                apart = positive("dilation", dilation);
    const auto axis_of = [&](int Image::*along, int Pixel::*axis, const std::array<int, 2> &pads) {
        // Of a single input it says nothing.
        const int step = size.*axis == 1 ? 1 : apart.*axis;
        if (step >= most_dilation)
            throw std::invalid_argument("dilation must be < 2^28.");
        const PoolAxis of{in.*along, out.*along, size.*axis, pace.*axis,
                          pads[0],   pads[1],    step,       adaptive};
        if (!adaptive && of.outputs != windows(of.size, of.kernel, of.stride, of.pad_before,
                                               of.pad_after, of.dilation, ceil_mode))
            throw std::invalid_argument(
                "the output's image does not follow from the input's and the geometry.");
        return of;
    };
    geometry.z = axis_of(&Image::depth, &Pixel::z, padding[0]);
    geometry.y = axis_of(&Image::height, &Pixel::y, padding[1]);
    geometry.x = axis_of(&Image::width, &Pixel::x, padding[2]);
    if (kind != "average" &&
        !(every_window_is_real(geometry.z) && every_window_is_real(geometry.y) &&
          every_window_is_real(geometry.x)))
        throw std::invalid_argument("padding must leave every window a real input to choose.");
    geometry.channels = in.channels;
    geometry.count_include_pad = count_include_pad;
    geometry.divisor = divisor;
    std::unique_ptr<Step> step;
    if (kind == "max")
        step = std::make_unique<MaxPool>(geometry);
    else if (kind == "max_proportional" && epsilon)
        step = std::make_unique<ProportionalMaxPool>(plan.kernels(), geometry, *epsilon);
    else if (kind == "average")
        step = std::make_unique<AveragePool>(plan.kernels(), geometry, epsilon);
    else
        throw std::invalid_argument("kind must be max, max_proportional with an epsilon, or "
                                    "average, not \"" +
                                    kind + "\".");
    return plan.add_step(std::move(step), {input}, {out, true}, blocks);
}

int add_resample(Plan &plan, int input, const py::array &index, const py::array &weight,
                 const Extent &to, std::optional<float> epsilon, bool blocks) {
    const Image out = image_of(to);
    const Image in = plan.tensor(input).image;
    const int64_t rows = out.pixels();
    const int64_t taps = index.ndim() == 2 ? index.shape(1) : 0;
    if (in.channels != out.channels)
        throw std::invalid_argument("resampling keeps the number of channels.");
    const int32_t *places = read<int32_t>(index, "index", {rows, taps});
    auto step = std::make_unique<Interpolation>(plan.kernels(), out, in.pixels(),
                                                std::vector<int32_t>(places, places + rows * taps),
                                                copy(weight, "weight", {rows, taps}), epsilon);
    return plan.add_step(std::move(step), {input}, {out, true}, blocks);
}

int add_add(Plan &plan, const std::vector<int> &inputs, std::optional<float> epsilon, bool clamp,
            bool blocks) {
    if (inputs.size() < 2)
        throw std::invalid_argument("inputs must name at least two tensors.");
    const Tensor first = plan.tensor(inputs[0]);
    for (int input : inputs)
        check_input(plan, input, first.image.size());
    return plan.add_step(std::make_unique<Add>(plan.kernels(), first.image, epsilon, clamp), inputs,
                         first, blocks);
}

int add_mul(Plan &plan, int a, int b, std::optional<std::array<float, 2>> shares, bool blocks) {
    const Tensor first = plan.tensor(a);
    check_input(plan, b, first.image.size());
    return plan.add_step(std::make_unique<Mul>(first.image, shares), {a, b}, first, blocks);
}

int add_maximum(Plan &plan, const std::vector<int> &inputs, bool blocks) {
    if (inputs.size() < 2)
        throw std::invalid_argument("inputs must name at least two tensors.");
    const Tensor first = plan.tensor(inputs[0]);
    for (int input : inputs)
        check_input(plan, input, first.image.size());
    return plan.add_step(std::make_unique<Maximum>(first.image), inputs, first, blocks);
}

int add_concat(Plan &plan, const std::vector<int> &inputs, int64_t outer, const Extent &to,
               bool channels_first, bool blocks) {
    const Image out = image_of(to);
    std::vector<int64_t> sizes;
    int64_t total = 0;
    for (int input : inputs) {
        const int64_t size = plan.tensor(input).image.size();
        if (outer < 1 || size % outer != 0)
            throw std::invalid_argument("outer must divide the size of every input.");
        sizes.push_back(size / outer);
        total += size;
    }
    if (inputs.empty() || total != out.size())
        throw std::invalid_argument("the inputs do not fill the output.");
    return plan.add_step(std::make_unique<Concat>(outer, sizes), inputs, {out, channels_first},
                         blocks);
}

int add_batch_norm(Plan &plan, int input, const py::array &scale, const py::array &shift,
                   std::optional<float> epsilon, bool pass, bool blocks) {
    const Tensor of = plan.tensor(input);
    const Shape shape = {of.image.channels};
    auto step = std::make_unique<BatchNorm>(plan.kernels(), of.image, copy(scale, "scale", shape),
                                            copy(shift, "shift", shape), epsilon, pass);
    return plan.add_step(std::move(step), {input}, of, blocks);
}

// A tensor as rows of so many values.
Image rows_of(const Plan &plan, int input, int width) {
    const int64_t size = plan.tensor(input).image.size();
    if (width < 1 || size % width != 0)
        throw std::invalid_argument("width must divide the " + std::to_string(size) +
                                    " values of the input, not be " + std::to_string(width) + ".");
    return {1, 1, static_cast<int>(size / width), width};
}

int add_layer_norm(Plan &plan, int input, int width, const py::object &weight,
                   const py::object &bias, float variance_epsilon, bool centred,
                   std::optional<float> epsilon, const Extent &to, bool channels_first,
                   bool blocks) {
    const Image rows = rows_of(plan, input, width), out = image_of(to);
    check_input(plan, input, out.size());
    if (!(variance_epsilon >= 0.0f))
        throw std::invalid_argument("variance_epsilon must be >= 0.");
    auto step = std::make_unique<LayerNorm>(plan.kernels(), rows, copy(weight, "weight", {width}),
                                            copy(bias, "bias", {width}), variance_epsilon, centred,
                                            epsilon);
    return plan.add_step(std::move(step), {input}, {out, channels_first}, blocks);
}

int add_softmax(Plan &plan, int input, int width, const std::string &rule, const Extent &to,
                bool channels_first, bool blocks) {
    const Image rows = rows_of(plan, input, width), out = image_of(to);
    check_input(plan, input, out.size());
    if (rule != "taylor" && rule != "gradient")
        throw std::invalid_argument("rule must be taylor or gradient, not \"" + rule + "\".");
    auto step = std::make_unique<Softmax>(rows.width, width, rule == "taylor");
    return plan.add_step(std::move(step), {input}, {out, channels_first}, blocks);
}

// Of (rows, depth, columns) matrices.
int add_mat_mul(Plan &plan, int a, int b, int count, const Triple &sides, bool turned,
                std::optional<std::array<float, 2>> shares, float epsilon, const Extent &to,
                bool channels_first, bool blocks) {
    const auto [rows, depth, columns] = sides;
    image_of({1, count, rows, depth}); // throws
    image_of({1, count, depth, columns});
    const Image out = image_of({1, count, rows, columns});
    check_input(plan, a, int64_t{1} * count * rows * depth);
    check_input(plan, b, int64_t{1} * count * depth * columns);
    if (image_of(to).size() != out.size())
        throw std::invalid_argument("to_image must hold the product's values.");
    if (!(epsilon > 0.0f))
        throw std::invalid_argument("epsilon must be > 0.");
    auto step = std::make_unique<MatMul>(
        plan.kernels(), Matrices{count, rows, depth, columns, turned}, shares, epsilon);
    return plan.add_step(std::move(step), {a, b}, {image_of(to), channels_first}, blocks);
}

ResponseRule response_rule_of(const std::string &name) {
    if (name == "pass")
        return ResponseRule::pass;
    if (name == "taylor")
        return ResponseRule::taylor;
    if (name == "gradient")
        return ResponseRule::gradient;
    throw std::invalid_argument("rule must be pass, taylor or gradient, not \"" + name + "\".");
}

int add_local_response_norm(Plan &plan, int input, bool within_channel, int size, float alpha,
                            float beta, float k, const std::string &rule, bool blocks) {
    if (size < 1)
        throw std::invalid_argument("size must be >= 1, not " + std::to_string(size) + ".");
    const Tensor of = plan.tensor(input);
    auto step = std::make_unique<LocalResponse>(plan.kernels(), of.image, within_channel, size,
                                                alpha, beta, k, response_rule_of(rule));
    return plan.add_step(std::move(step), {input}, of, blocks);
}

Function function_of(const std::string &name) {
    constexpr const char *names[] = {"leaky_relu", "elu",      "silu", "gelu",
                                     "gelu_tanh",  "sigmoid",  "tanh", "hard_sigmoid",
                                     "hard_swish", "softplus", "exp",  "power"};
    for (size_t i = 0; i < std::size(names); ++i)
        if (name == names[i])
            return static_cast<Function>(i);
    throw std::invalid_argument("function must name an activation, not \"" + name + "\".");
}

ActivationRule activation_rule_of(const std::string &name) {
    constexpr const char *names[] = {"pass", "gradient", "deconvolution", "guided"};
    for (size_t i = 0; i < std::size(names); ++i)
        if (name == names[i])
            return static_cast<ActivationRule>(i);
    throw std::invalid_argument("rule must be pass, gradient, deconvolution or guided, not \"" +
                                name + "\".");
}

int add_activation(Plan &plan, int input, const std::string &function, float parameter,
                   const std::string &rule, bool blocks) {
    const Tensor of = plan.tensor(input);
    auto step = std::make_unique<Activation>(of.image, function_of(function), parameter,
                                             activation_rule_of(rule));
    return plan.add_step(std::move(step), {input}, of, blocks);
}

int add_clip(Plan &plan, int input, float low, float high, const std::string &rule, bool clamped,
             bool blocks) {
    const Tensor of = plan.tensor(input);
    auto step = std::make_unique<Clip>(of.image, low, high, activation_rule_of(rule), clamped);
    return plan.add_step(std::move(step), {input}, of, blocks);
}

int add_prelu(Plan &plan, int input, const py::array &slope, const std::string &rule, bool blocks) {
    const Tensor of = plan.tensor(input);
    if (slope.size() < 1 || of.image.size() % slope.size() != 0)
        throw std::invalid_argument("slope must have a length that divides the input's.");
    auto step = std::make_unique<PRelu>(
        plan.kernels(), of.image, copy(slope, "slope", {slope.size()}), activation_rule_of(rule));
    return plan.add_step(std::move(step), {input}, of, blocks);
}

int add_embedding(Plan &plan, int input, const py::array &weight, bool blocks) {
    if (weight.ndim() != 2 || weight.size() < 1)
        throw std::invalid_argument("weight must have 2 axes and not be empty.");
    const int64_t ids = plan.tensor(input).image.size();
    const int64_t features = weight.shape(1), most = std::numeric_limits<int32_t>::max();
    if (features > most / ids)
        throw std::invalid_argument("the output must hold fewer than 2^31 values.");
    auto step = std::make_unique<Embedding>(plan.kernels(), ids, features,
                                            copy(weight, "weight", shape_of(weight)));
    const Image out = {1, 1, static_cast<int>(ids), static_cast<int>(features)};
    return plan.add_step(std::move(step), {input}, {out, false}, blocks);
}

int add_constant(Plan &plan, const py::array &value, const Extent &image, bool channels_first) {
    const Image of = image_of(image);
    auto step = std::make_unique<Constant>(plan.kernels(), copy(value, "value", {of.size()}));
    return plan.add_step(std::move(step), {}, {of, channels_first}, false);
}

int add_move(Plan &plan, int input, const py::array &index, float value, const Extent &to,
             bool channels_first, bool blocks) {
    const Image out = image_of(to);
    const int32_t *places = read<int32_t>(index, "index", {out.size()});
    auto step =
        std::make_unique<Move>(plan.kernels(), std::vector<int32_t>(places, places + out.size()),
                               plan.tensor(input).image.size(), value);
    return plan.add_step(std::move(step), {input}, {out, channels_first}, blocks);
}

int add_view(Plan &plan, int input, const Extent &to, bool channels_first, bool blocks) {
    const Image out = image_of(to);
    check_input(plan, input, out.size());
    return plan.add_step(std::make_unique<View>(out.size()), {input}, {out, channels_first},
                         blocks);
}

// Floats of a request: numpy arrays, or arrays in the memory of the plan's device. All are alike.
class Floats {
  public:
    Floats(const Plan &plan, const py::object &like)
        : plan_(plan), on_device_(plan.kernels().device && is_on_device(like)) {}

    const float *read(const py::object &array, const char *name, const Shape &shape) const {
        if (on_device_)
            return read_on_device(array, name, shape);
        return relprop::read<float>(array.cast<py::array>(), name, shape);
    }
    float *write(const py::object &array, const char *name, const Shape &shape) const {
        if (on_device_)
            return write_on_device(array, name, shape);
        auto host = array.cast<py::array>();
        return relprop::write<float>(host, name, shape);
    }
    // One array for each of the plan's inputs; `name` is the whole argument's.
    template <class Access>
    auto each_input(const std::vector<py::object> &arrays, const char *name, int64_t n,
                    Access access) const {
        const auto &inputs = plan_.inputs();
        if (arrays.size() != inputs.size())
            throw std::invalid_argument(std::string(name) + " must hold " +
                                        std::to_string(inputs.size()) + " arrays, not " +
                                        std::to_string(arrays.size()) + ".");
        std::vector<decltype((this->*access)(arrays[0], name, Shape()))> pointers;
        for (size_t i = 0; i < arrays.size(); ++i)
            pointers.push_back(
                (this->*access)(arrays[i], name, {n, plan_.tensor(inputs[i]).image.size()}));
        return pointers;
    }

    bool on_device() const { return on_device_; }

  private:
    const Plan &plan_;
    bool on_device_;
};

Initial initial_of(const std::string &name) {
    if (name == "value")
        return Initial::value;
    if (name == "one")
        return Initial::one;
    if (name == "given")
        return Initial::given;
    throw std::invalid_argument("initial must be value, one or given, not \"" + name + "\".");
}

// Arrays are in the user's order, flattened per sample: (n, size). `stream` is a CUDA stream's
// address, for arrays that are on a device.
void run(const Plan &plan, const std::vector<py::object> &inputs, const py::object &scores,
         const std::string &initial, bool argmax, py::object targets, const py::object &mask,
         const py::object &given, const std::optional<std::vector<py::object>> &relevance,
         py::object absorbed, py::object totals, py::object seconds,
         const std::vector<std::tuple<int, bool, py::object>> &copies, uintptr_t stream) {
    if (!plan.finished())
        throw std::logic_error("the plan is not finished.");
    const Floats floats(plan, scores);
    Request request;
    request.on_device = floats.on_device();
    request.stream = reinterpret_cast<Stream>(stream);
    const int64_t n = samples_of(scores, "scores"),
                  outputs = plan.tensor(plan.output()).image.size();
    request.n = n;
    request.inputs = floats.each_input(inputs, "inputs", n, &Floats::read);
    request.scores = floats.write(scores, "scores", {n, outputs});
    request.argmax = argmax;
    request.initial = initial_of(initial);

    const auto writable = [](py::object &object) { return object.cast<py::array>(); };
    if (relevance) {
        request.relevance = floats.each_input(*relevance, "relevance", n, &Floats::write);
        if (request.initial == Initial::given) {
            request.given = floats.read(given, "given", {n, outputs});
        } else if (!mask.is_none()) {
            request.mask = read<uint8_t>(mask.cast<py::array>(), "mask", {n, outputs});
        } else {
            auto of_targets = writable(targets);
            request.targets = write<int64_t>(of_targets, "targets", {n});
        }
    }
    if (!absorbed.is_none()) {
        auto array = writable(absorbed);
        request.absorbed = write<double>(array, "absorbed", {n, plan.steps(), accounts});
        std::fill_n(request.absorbed, array.size(), 0.0);
    }
    if (!totals.is_none()) {
        auto array = writable(totals);
        request.totals = write<double>(array, "totals", {n, plan.tensors(), 2});
        std::fill_n(request.totals, array.size(), // what no step tells shows
                    std::numeric_limits<double>::quiet_NaN());
    }
    if (!seconds.is_none()) {
        auto array = writable(seconds);
        request.seconds = write<double>(array, "seconds", {plan.steps(), 2});
        std::fill_n(request.seconds, array.size(), 0.0);
    }
    for (const auto &[tensor, of_relevance, array] : copies)
        request.copies.push_back(
            {tensor, of_relevance,
             floats.write(array, "copies", {n, plan.tensor(tensor).image.size()})});

    request.between_chunks = [] { // so that Ctrl-C ends a long run
        py::gil_scoped_acquire acquired;
        if (PyErr_CheckSignals() != 0)
            throw py::error_already_set();
    };
    py::gil_scoped_release released;
    plan.run(request);
}

Precision precision_of(const std::string &name) {
    if (name == "float32")
        return Precision::float32;
    if (name == "tf32")
        return Precision::tf32;
    if (name == "bf16")
        return Precision::bf16;
    throw std::invalid_argument("precision must be float32, tf32 or bf16, not \"" + name + "\".");
}

std::unique_ptr<Plan> make_plan(std::optional<int> gpu, const std::string &precision) {
    const Precision of = precision_of(precision);
    if (!gpu && of != Precision::float32)
        throw std::invalid_argument("precision must be float32 on a CPU, not \"" + precision +
                                    "\".");
    return std::make_unique<Plan>(gpu ? cuda_kernels(*gpu, of) : cpu_kernels());
}

} // namespace

void register_plan(py::module_ &module) {
    using namespace pybind11::literals;
    py::class_<Plan>(module, "Plan",
                     "A network compiled to steps; images are (depth, height, width, channels).")
        .def(py::init(&make_plan), "gpu"_a = py::none(), "precision"_a = "float32")
        .def("input", add_input, "image"_a, "channels_first"_a)
        .def("linear", add_linear, "input"_a, "from_image"_a, "to_image"_a, "weight"_a, "bias"_a,
             "stride"_a, "padding"_a, "dilation"_a, "groups"_a, "rule"_a, py::kw_only(),
             "transposed"_a, "blocks"_a, "input_nonnegative"_a, "supported"_a, "clamp"_a, "low"_a,
             "high"_a, "channels_first"_a)
        .def("pool", add_pool, "kind"_a, "input"_a, "from_image"_a, "to_image"_a, py::kw_only(),
             "kernel"_a, "stride"_a, "padding"_a, "dilation"_a, "ceil_mode"_a, "adaptive"_a,
             "count_include_pad"_a, "divisor"_a, "epsilon"_a, "blocks"_a)
        .def("resample", add_resample, "input"_a, "index"_a, "weight"_a, "to_image"_a, "epsilon"_a,
             "blocks"_a)
        .def("add", add_add, "inputs"_a, "epsilon"_a, "clamp"_a, "blocks"_a)
        .def("mul", add_mul, "a"_a, "b"_a, "shares"_a, "blocks"_a)
        .def("maximum", add_maximum, "inputs"_a, "blocks"_a)
        .def("concat", add_concat, "inputs"_a, "outer"_a, "to_image"_a, "channels_first"_a,
             "blocks"_a)
        .def("batch_norm", add_batch_norm, "input"_a, "scale"_a, "shift"_a, "epsilon"_a, "passes"_a,
             "blocks"_a)
        .def("layer_norm", add_layer_norm, "input"_a, "width"_a, "weight"_a, "bias"_a,
             "variance_epsilon"_a, "centred"_a, "epsilon"_a, "to_image"_a, py::kw_only(),
             "channels_first"_a, "blocks"_a)
        .def("softmax", add_softmax, "input"_a, "width"_a, "rule"_a, "to_image"_a, py::kw_only(),
             "channels_first"_a, "blocks"_a)
        .def("mat_mul", add_mat_mul, "a"_a, "b"_a, "count"_a, "sides"_a, "turned"_a, "shares"_a,
             "epsilon"_a, "to_image"_a, py::kw_only(), "channels_first"_a, "blocks"_a)
        .def("local_response_norm", add_local_response_norm, "input"_a, "within_channel"_a,
             "size"_a, "alpha"_a, "beta"_a, "k"_a, "rule"_a, "blocks"_a)
        .def("activation", add_activation, "input"_a, "function"_a, "parameter"_a, "rule"_a,
             "blocks"_a)
        .def("clip", add_clip, "input"_a, "low"_a, "high"_a, "rule"_a, "clamped"_a, "blocks"_a)
        .def("prelu", add_prelu, "input"_a, "slope"_a, "rule"_a, "blocks"_a)
        .def("embedding", add_embedding, "input"_a, "weight"_a, "blocks"_a)
        .def("constant", add_constant, "value"_a, "image"_a, "channels_first"_a)
        .def("move", add_move, "input"_a, "index"_a, "value"_a, "to_image"_a, "channels_first"_a,
             "blocks"_a)
        .def("view", add_view, "input"_a, "to_image"_a, py::kw_only(), "channels_first"_a,
             "blocks"_a)
        .def("finish", &Plan::finish, "output"_a)
        .def("run", run, "inputs"_a, "scores"_a, py::kw_only(), "initial"_a = "value",
             "argmax"_a = true, "targets"_a = py::none(), "mask"_a = py::none(),
             "given"_a = py::none(), "relevance"_a = py::none(), "absorbed"_a = py::none(),
             "totals"_a = py::none(), "seconds"_a = py::none(), "copies"_a = py::list(),
             "stream"_a = 0)
        .def_property_readonly("steps", &Plan::steps)
        .def_property_readonly("tensors", &Plan::tensors)
        .def_property_readonly("arena_per_sample", &Plan::arena_per_sample)
        .def_property_readonly("senders", &Plan::senders)
        .def_property_readonly("stages", [](const Plan &plan) {
            std::vector<std::tuple<int, int, int64_t>> stages;
            for (const Stage &stage : plan.stages())
                stages.emplace_back(stage.first, stage.last, stage.at_once);
            return stages;
        });
}

} // namespace relprop
