/* Resize an RGB image as Pillow's Image.resize does, bit for bit, but compute only the pixels of a crop.
 *
 * A resized pixel is a weighted sum of source pixels, first along the rows and then along the columns (or the other way
 * round: recent versions of Pillow do the columns first if the height shrinks by much more than the width). The
 * arithmetic is that of Pillow for 8-bit images, because equal pixels need equal rounding:
 *
 *   - weights are computed and normalised in double precision, then rounded to 22 bits, halves away from zero;
 *   - sums are 32-bit integers that start from one half, are shifted right by 22 bits and clipped to 0..255;
 *   - the intermediate image between the two passes is rounded to 8 bits;
 *   - along a side whose size does not change, pixels are copied, whatever the filter.
 *
 * Two things differ from Pillow. Rows and columns outside the crop are not computed. And the pass along the rows works
 * on LANES rows at once, so that both passes are simple loops over contiguous numbers, which compilers vectorise. On
 * x86-64 Linux, where the loader can select among several builds of a function, the passes are built for AVX-512, for
 * AVX2 and for any processor. All give the same bytes.
 */
#define PY_SSIZE_T_CLEAN
#include <pyconfig.h> /* says whether Py_GIL_DISABLED is set; that must be known before Python.h is read */
#ifndef Py_GIL_DISABLED
#define Py_LIMITED_API 0x030B0000 /* one build serves Python 3.11 and later */
#endif
#include <Python.h>

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "pixels are moved as little-endian words"
#endif
#if FLT_EVAL_METHOD != 0
#error "weights must be computed in double precision"
#endif

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__has_attribute)
#if __has_attribute(target_clones) && __GNUC__ >= 12
#define FOR_EVERY_PROCESSOR __attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#elif __has_attribute(target_clones) /* older compilers do not know x86-64-v4 */
#define FOR_EVERY_PROCESSOR __attribute__((target_clones("avx2", "default")))
#endif
#endif
#ifndef FOR_EVERY_PROCESSOR
#define FOR_EVERY_PROCESSOR
#endif

#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline)) /* built for the same processor as its caller */
#else
#define INLINE static inline
#endif

enum {
    CHANNELS = 3,
    LANES = 16,         /* rows that the pass along the rows computes at once */
    CHUNK = 64,         /* bytes of a row that the pass along the columns computes at once */
    FRACTION_BITS = 22, /* of a weight: 32 less 8 for the pixel and 2 for sums outside 0..255 */
    MAX_SIDE = 1 << 24, /* larger sizes are not exact in single precision, to which Pillow converts them */
};

static const double PI = 3.14159265358979323846;

/* ---- Filters: the weight of a source pixel at a distance, in units of the filter's scale. ---- */

INLINE double box(double x) { return x > -0.5 && x <= 0.5 ? 1.0 : 0.0; }

INLINE double bilinear(double x) {
    x = fabs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

/* Pillow writes the two constants of the Hamming window in single precision. */
INLINE double hamming(double x) {
    x = fabs(x);
    if (x == 0.0) {
        return 1.0;
    }
    return x < 1.0 ? sin(x * PI) / (x * PI) * (0.54f + 0.46f * cos(x * PI)) : 0.0;
}

/* The cubic convolution kernel of Keys with a = -1/2. */
INLINE double bicubic(double x) {
    const double a = -0.5;
    x = fabs(x);
    if (x < 1.0) {
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
    }
    return x < 2.0 ? (((x - 5.0) * x + 8.0) * x - 4.0) * a : 0.0;
}

INLINE double sinc(double x) { return x == 0.0 ? 1.0 : sin(x * PI) / (x * PI); }

INLINE double lanczos(double x) { return x >= -3.0 && x < 3.0 ? sinc(x) * sinc(x / 3.0) : 0.0; }

enum { BOX, BILINEAR, HAMMING, BICUBIC, LANCZOS, FILTERS };
static const double SUPPORT[FILTERS] = {0.5, 1.0, 1.0, 2.0, 3.0};

/* ---- One axis: the source pixels and weights of each pixel of the crop. ---- */

typedef struct {
    int first, count;
} Span;

typedef struct {
    int start, stop;  /* the source pixels that the crop needs */
    Span *spans;      /* for each pixel of the crop, its source pixels, counted from start */
    int32_t *weights; /* for each pixel of the crop, the weights of these; `most` per pixel are allocated */
    int most;
} Axis;

static void *allocate(uint64_t count, uint64_t size) {
    return count < PTRDIFF_MAX / size ? malloc((size_t)(count * size)) : NULL;
}

/* Write the weights, not normalised, of `count` source pixels starting at `first` for a pixel with this centre. */
static void weigh(double *weight, int count, int first, double centre, double per_pixel, int filter) {
#define EACH(function) \
    for (int i = 0; i < count; i++) { \
        weight[i] = function((i + first - centre + 0.5) * per_pixel); \
    } \
    break
    switch (filter) {
    case BOX: EACH(box);
    case BILINEAR: EACH(bilinear);
    case HAMMING: EACH(hamming);
    case BICUBIC: EACH(bicubic);
    default: EACH(lanczos);
    }
#undef EACH
}

/* How a side of `before` pixels is resized. */
typedef struct {
    int before, filter;
    double scale, support, per_pixel;
} Scaling;

static Scaling scaling_of(int before, int after, int filter) {
    if (before == after) {
        filter = BOX; /* has a single weight, 1, at this scale */
    }
    const double scale = (double)before / after, filter_scale = scale < 1.0 ? 1.0 : scale;
    return (Scaling){before, filter, scale, SUPPORT[filter] * filter_scale, 1.0 / filter_scale};
}

/* The source pixels of a resized pixel with this centre. */
static Span span_of(const Scaling *side, double centre) {
    const int first = (int)(centre - side->support + 0.5), stop = (int)(centre + side->support + 0.5);
    const int start = first < 0 ? 0 : first;
    return (Span){start, (stop > side->before ? side->before : stop) - start};
}

/* The source pixels of the `kept` resized pixels starting at `from`. */
static Span needed_span(int before, int after, int from, int kept, int filter) {
    const Scaling side = scaling_of(before, after, filter);
    const Span first = span_of(&side, (from + 0.5) * side.scale);
    const Span last = span_of(&side, (from + kept - 0.5) * side.scale);
    return (Span){first.first, last.first + last.count - first.first};
}

/* Fill `axis` for the `kept` pixels starting at `from` of a side resized from `before` to `after` pixels.
 * Return 0 if out of memory. The caller frees spans and weights. */
static int plan_axis(Axis *axis, int before, int after, int from, int kept, int filter) {
    const Scaling side = scaling_of(before, after, filter);
    axis->most = (int)ceil(side.support) * 2 + 1;
    axis->spans = allocate(kept, sizeof(Span));
    axis->weights = allocate((uint64_t)kept * axis->most, sizeof(int32_t));
    double *weight = allocate(axis->most, sizeof(double));
    if (!axis->spans || !axis->weights || !weight) {
        free(weight);
        return 0;
    }
    for (int i = 0; i < kept; i++) {
        const double centre = (from + i + 0.5) * side.scale;
        const Span span = span_of(&side, centre);
        const int first = span.first, count = span.count;
        weigh(weight, count, first, centre, side.per_pixel, side.filter);
        double sum = 0.0;
        for (int j = 0; j < count; j++) {
            sum += weight[j];
        }
        int32_t *fixed = axis->weights + (size_t)i * axis->most;
        for (int j = 0; j < count; j++) {
            const double exact = (sum == 0.0 ? weight[j] : weight[j] / sum) * (1 << FRACTION_BITS);
            fixed[j] = (int32_t)(exact < 0 ? exact - 0.5 : exact + 0.5);
        }
        if (i == 0) {
            axis->start = first;
        }
        axis->stop = first + count;
        axis->spans[i] = (Span){first - axis->start, count};
    }
    free(weight);
    return 1;
}

/* ---- The two passes. ---- */

INLINE int32_t clip(int32_t sum) {
    sum >>= FRACTION_BITS;
    return sum < 0 ? 0 : sum > 255 ? 255 : sum;
}

/* Pixels are read and written as words of four bytes. The fourth byte belongs to the next pixel: it is ignored after
 * reading, and overwritten later when writing. The last pixel of a row is read and written as three bytes. */
INLINE void gather(uint32_t *pixel, const uint8_t **from, ptrdiff_t at, int last) {
    for (int i = 0; !last && i < LANES; i++) {
        memcpy(&pixel[i], from[i] + at, 4);
    }
    for (int i = 0; last && i < LANES; i++) {
        memcpy(&pixel[i], from[i] + at, 3);
    }
}

INLINE void scatter(const uint32_t *pixel, uint8_t **to, ptrdiff_t at, int last) {
    for (int i = 0; !last && i < LANES; i++) {
        memcpy(to[i] + at, &pixel[i], 4);
    }
    for (int i = 0; last && i < LANES; i++) {
        memcpy(to[i] + at, &pixel[i], 3);
    }
}

/* Resample `rows` rows to the columns of the crop. `source` points to the first column that is needed.
 *
 * `block` holds LANES rows, transposed: [column][channel][lane]. Lanes beyond the last row repeat that row, and write
 * the same bytes again.
 */
FOR_EVERY_PROCESSOR static void along_rows(const uint8_t *source, ptrdiff_t source_stride, uint8_t *out,
                                           ptrdiff_t out_stride, int rows, int columns, const Axis *axis,
                                           int32_t *block) {
    const int needed = axis->stop - axis->start;
    for (int row = 0; row < rows; row += LANES) {
        const uint8_t *from[LANES];
        uint8_t *to[LANES];
        for (int i = 0; i < LANES; i++) {
            const int same = row + i < rows ? row + i : rows - 1;
            from[i] = source + same * source_stride;
            to[i] = out + same * out_stride;
        }
        for (int column = 0; column < needed; column++) {
            uint32_t pixel[LANES] = {0};
            gather(pixel, from, column * CHANNELS, column == needed - 1);
            int32_t *restrict cell = block + (size_t)column * CHANNELS * LANES;
            for (int i = 0; i < LANES; i++) {
                cell[i] = pixel[i] & 255;
                cell[LANES + i] = pixel[i] >> 8 & 255;
                cell[2 * LANES + i] = pixel[i] >> 16 & 255;
            }
        }
        for (int column = 0; column < columns; column++) {
            const int32_t *weights = axis->weights + (size_t)column * axis->most;
            const int32_t *cell = block + (size_t)axis->spans[column].first * CHANNELS * LANES;
            const int count = axis->spans[column].count;
            int32_t red[LANES], green[LANES], blue[LANES];
            for (int i = 0; i < LANES; i++) {
                red[i] = green[i] = blue[i] = 1 << (FRACTION_BITS - 1);
            }
            for (int j = 0; j < count; j++, cell += CHANNELS * LANES) {
                for (int i = 0; i < LANES; i++) {
                    red[i] += cell[i] * weights[j];
                    green[i] += cell[LANES + i] * weights[j];
                    blue[i] += cell[2 * LANES + i] * weights[j];
                }
            }
            uint32_t pixel[LANES];
            for (int i = 0; i < LANES; i++) {
                pixel[i] = clip(red[i]) | clip(green[i]) << 8 | clip(blue[i]) << 16;
            }
            scatter(pixel, to, column * CHANNELS, column == columns - 1);
        }
    }
}

/* Compute the weighted sum of `count` rows for `size` contiguous bytes. */
INLINE void weighted_rows(const uint8_t *source, ptrdiff_t stride, const int32_t *weights, int count, int size,
                          uint8_t *out) {
    int32_t sum[CHUNK];
    for (int i = 0; i < size; i++) {
        sum[i] = 1 << (FRACTION_BITS - 1);
    }
    for (int j = 0; j < count; j++) {
        for (int i = 0; i < size; i++) {
            sum[i] += source[j * stride + i] * weights[j];
        }
    }
    for (int i = 0; i < size; i++) {
        out[i] = (uint8_t)clip(sum[i]);
    }
}

/* Resample rows of `width` bytes to the rows of the crop. `source` points to the first row that is needed. */
FOR_EVERY_PROCESSOR static void along_columns(const uint8_t *source, ptrdiff_t source_stride, uint8_t *out,
                                              ptrdiff_t out_stride, int rows, int width, const Axis *axis) {
    for (int row = 0; row < rows; row++) {
        const int32_t *weights = axis->weights + (size_t)row * axis->most;
        const uint8_t *first = source + axis->spans[row].first * source_stride;
        const int count = axis->spans[row].count;
        for (int at = 0; at < width; at += CHUNK) {
            uint8_t *to = out + row * out_stride + at;
            if (at + CHUNK <= width) { /* a constant size keeps the sums in registers */
                weighted_rows(first + at, source_stride, weights, count, CHUNK, to);
            } else {
                weighted_rows(first + at, source_stride, weights, count, width - at, to);
            }
        }
    }
}

/* ---- Both passes, on checked arguments. ---- */

typedef struct {
    uint8_t *data;
    ptrdiff_t stride;
    int width, height;
} Image;

/* Write the crop of the resized image to `out`. `source` is the part of the image that starts at (left, top).
 * Return 0 if out of memory. */
static int resize(Image source, int left, int top, Image out, const Axis *across, const Axis *down,
                  int columns_first) {
    const uint8_t *first =
        source.data + (down->start - top) * source.stride + (ptrdiff_t)(across->start - left) * CHANNELS;
    const int columns = across->stop - across->start, rows = down->stop - down->start, width = out.width * CHANNELS;
    const ptrdiff_t stride = columns_first ? (ptrdiff_t)columns * CHANNELS : width;
    uint8_t *between = allocate(columns_first ? out.height : rows, stride);
    int32_t *block = allocate((uint64_t)columns * CHANNELS * LANES, sizeof(int32_t));
    const int done = between && block;
    if (done && columns_first) {
        along_columns(first, source.stride, between, stride, out.height, columns * CHANNELS, down);
        along_rows(between, stride, out.data, out.stride, out.height, out.width, across, block);
    } else if (done) {
        along_rows(first, source.stride, between, stride, rows, out.width, across, block);
        along_columns(between, stride, out.data, out.stride, out.height, width, down);
    }
    free(between);
    free(block);
    return done;
}

/* ---- The Python interface. ---- */

static int as_image(Image *image, const Py_buffer *view, const char *name) {
    const int bytes = view->format == NULL || strcmp(view->format, "B") == 0;
    if (!bytes || view->itemsize != 1 || view->ndim != 3 || view->shape[2] != CHANNELS) {
        PyErr_Format(PyExc_ValueError, "%s is not uint8 (height, width, 3).", name);
        return 0;
    }
    if (view->strides[2] != 1 || view->strides[1] != CHANNELS) {
        PyErr_Format(PyExc_ValueError, "%s: the pixels of a row are not contiguous.", name);
        return 0;
    }
    for (int i = 0; i < 2; i++) {
        if (view->shape[i] < 1 || view->shape[i] > MAX_SIDE) {
            PyErr_Format(PyExc_ValueError, "%s: a side is %zd, expected 1 to %d.", name, view->shape[i], MAX_SIDE);
            return 0;
        }
    }
    *image = (Image){view->buf, view->strides[0], (int)view->shape[1], (int)view->shape[0]};
    return 1;
}

static int check_part(int size, int from, int count, const char *name) {
    if (size < 1 || size > MAX_SIDE || from < 0 || from > size - count) {
        PyErr_Format(PyExc_ValueError, "%s: %d starting at %d is outside an image of %d.", name, count, from, size);
        return 0;
    }
    return 1;
}

static int contains(int from, int count, const Axis *axis) { return from <= axis->start && axis->stop <= from + count; }

static int check_crop(int size, int from, int kept, const char *name) {
    if (size < 1 || size > MAX_SIDE || from < 0 || from > size - kept) {
        PyErr_Format(PyExc_ValueError, "%s: %d starting at %d is outside a resized image of %d.", name, kept, from,
                     size);
        return 0;
    }
    return 1;
}

PyDoc_STRVAR(resize_crop_doc,
"resize_crop(pixels, out, full, at, resized, start, filter, columns_first)\n--\n\n"
"Write the rectangle at `start` of the resized image to `out`.\n"
"Use it through wds_real.image.resample.resize_crop.");

static PyObject *resize_crop(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *pixels, *target;
    int full_width, full_height, at_left, at_top, width, height, left, top, filter, columns_first;
    if (!PyArg_ParseTuple(args, "OO(ii)(ii)(ii)(ii)ip", &pixels, &target, &full_width, &full_height, &at_left, &at_top,
                          &width, &height, &left, &top, &filter, &columns_first)) {
        return NULL;
    }
    Py_buffer from, to;
    if (PyObject_GetBuffer(pixels, &from, PyBUF_STRIDES | PyBUF_FORMAT) < 0) {
        return NULL;
    }
    if (PyObject_GetBuffer(target, &to, PyBUF_STRIDES | PyBUF_FORMAT | PyBUF_WRITABLE) < 0) {
        PyBuffer_Release(&from);
        return NULL;
    }
    Image source, out;
    PyObject *result = NULL;
    if (filter < 0 || filter >= FILTERS) {
        PyErr_Format(PyExc_ValueError, "filter is %d, expected 0 to %d.", filter, FILTERS - 1);
    } else if (as_image(&source, &from, "pixels") && as_image(&out, &to, "out") &&
               check_part(full_width, at_left, source.width, "width") &&
               check_part(full_height, at_top, source.height, "height") &&
               check_crop(width, left, out.width, "width") && check_crop(height, top, out.height, "height")) {
        Axis across = {0}, down = {0};
        int done, complete = 1;
        Py_BEGIN_ALLOW_THREADS
        done = plan_axis(&across, full_width, width, left, out.width, filter) &&
               plan_axis(&down, full_height, height, top, out.height, filter);
        if (done) {
            complete = contains(at_left, source.width, &across) && contains(at_top, source.height, &down);
            done = complete && resize(source, at_left, at_top, out, &across, &down, columns_first);
        }
        free(across.spans);
        free(across.weights);
        free(down.spans);
        free(down.weights);
        Py_END_ALLOW_THREADS
        if (!complete) {
            PyErr_SetString(PyExc_ValueError, "pixels do not contain the whole part of the image that the crop needs.");
        } else {
            result = done ? Py_NewRef(Py_None) : PyErr_NoMemory();
        }
    }
    PyBuffer_Release(&to);
    PyBuffer_Release(&from);
    return result;
}

PyDoc_STRVAR(needed_box_doc,
"needed_box(full, resized, start, size, filter)\n--\n\n"
"Return (left, top, right, bottom) of the source pixels that a crop of a resized image needs.");

static PyObject *needed_box(PyObject *module, PyObject *args) {
    (void)module;
    int full_width, full_height, width, height, left, top, kept_width, kept_height, filter;
    if (!PyArg_ParseTuple(args, "(ii)(ii)(ii)(ii)i", &full_width, &full_height, &width, &height, &left, &top,
                          &kept_width, &kept_height, &filter)) {
        return NULL;
    }
    if (filter < 0 || filter >= FILTERS) {
        return PyErr_Format(PyExc_ValueError, "filter is %d, expected 0 to %d.", filter, FILTERS - 1);
    }
    if (kept_width < 1 || kept_height < 1 || !check_part(full_width, 0, 1, "width") ||
        !check_part(full_height, 0, 1, "height") || !check_crop(width, left, kept_width, "width") ||
        !check_crop(height, top, kept_height, "height")) {
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_ValueError, "the crop is empty.");
    }
    const Span across = needed_span(full_width, width, left, kept_width, filter);
    const Span down = needed_span(full_height, height, top, kept_height, filter);
    return Py_BuildValue("iiii", across.first, down.first, across.first + across.count, down.first + down.count);
}

static PyMethodDef methods[] = {
    {"resize_crop", resize_crop, METH_VARARGS, resize_crop_doc},
    {"needed_box", needed_box, METH_VARARGS, needed_box_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
#ifdef Py_GIL_DISABLED
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_resample", "Resize as Pillow does, and compute only a crop.", 0, methods, slots,
    NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__resample(void) { return PyModuleDef_Init(&definition); }
