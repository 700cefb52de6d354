// The functions that every backend has under the names of its slots (kernels.hpp). Without a guard:
// each backend's header includes this inside a namespace of its own.

void depthwise(const Product &, Stream);
void prepare(const Prepare &, Stream);
void group_sums(const float *share, int64_t rows, int channels, int groups, float *sums, Stream);
void spread(const Spread &, Stream);
bool folds(const Fold &);
void fold(const Fold &, Stream);
int chunks(int groups, int out);
void message(const Message &, int64_t rows, int channels, Stream);
bool scarce(const Scarce &, Stream);

void max_pool(const Pool &, Stream);
void max_pool_relevance(const Pool &, Stream);
void average_pool(const Pool &, Stream);
void average_pool_relevance(const Pool &, Stream);

void resample(const Resample &, Stream);
void resample_relevance(const Resample &, Stream);

void add(const float *a, const float *b, float *out, int64_t n, bool clamp, Stream);
void multiply(const float *a, const float *b, float *out, int64_t n, bool add, Stream);
void maximum(const float *a, const float *b, float *out, int64_t n, Stream);
void maximum_relevance(const float *x, const float *y, float *r, float *out, int64_t n, bool add,
                       Stream);
void blocks(const Blocks &, Stream);

void affine(const Affine &, Stream);
void affine_relevance(const Affine &, Stream);
void local_response_norm(const LocalResponseNorm &, Stream);
void local_response_norm_sums(const LocalResponseNorm &, Stream);
void local_response_norm_relevance(const LocalResponseNorm &, Stream);
void local_response_norm_gradient(const LocalResponseNorm &, Stream);
void layer_norm(const RowNorm &, Stream);
void layer_norm_relevance(const RowNorm &, Stream);
void layer_norm_gradient(const RowNorm &, Stream);

void softmax(const RowSoftmax &, Stream);
void softmax_relevance(const RowSoftmax &, Stream);
void softmax_gradient(const RowSoftmax &, Stream);
void matrix_product(const MatrixProduct &, Stream);

void activation(Function, float parameter, const float *x, float *y, int64_t n, Stream);
void activation_gradient(Function, float parameter, const float *x, const float *r, float *out,
                         int64_t n, bool add, Stream);
void clip(float low, float high, const float *x, float *y, int64_t n, Stream);
void clip_gradient(float low, float high, const float *y, const float *r, float *out, int64_t n,
                   bool add, Stream);
void prelu(const Prelu &, Stream);
void prelu_gradient(const Prelu &, Stream);
void lookup(const Lookup &, Stream);
void lookup_relevance(const Lookup &, Stream);
void carry(const float *from, float scale, float *to, int64_t n, bool add, Stream);
void fill(float value, float *to, int64_t n, Stream);
void gather(const Gather &, Stream);
void gather_relevance(const Gather &, Stream);
void to_channels_last(const float *in, float *out, int64_t n, Image, Stream);
void to_channels_first(const float *in, float *out, int64_t n, Image, Stream);

void totals(const Totals &, Stream);
void sum_tallies(const Tallies &, Stream);
void book(const Totals &, const int32_t *places, int64_t count, Stream);

void regions(const Regions &, Stream);

void begin(const Beginning &, Stream);
void check_finite(const float *values, int64_t n, int64_t *bad, Stream);
