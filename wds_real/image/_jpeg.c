/* Decode a rectangle of a JPEG, the crop, to the same pixels as decoding the whole image; and find what libjpeg-turbo
 * warns about in a file.
 *
 * libjpeg-turbo can skip columns and rows. The entropy-coded data left of, right of and above the crop is still read,
 * but the inverse DCT, upsampling and colour conversion are skipped. At the edges of a crop the library upsamples as at
 * the edges of an image, without neighbours. So a few columns more than the crop are decoded, and dropped.
 *
 * Supported are the files that nearly all photographs are: sequential, Huffman-coded, one scan, grayscale or YCbCr with
 * a common subsampling, not truncated, and decoded without a warning. For other files the result is -1, and the caller
 * uses another decoder.
 */
#define PY_SSIZE_T_CLEAN
#include <pyconfig.h> /* says whether Py_GIL_DISABLED is set; that must be known before Python.h is read */
#ifndef Py_GIL_DISABLED
#define Py_LIMITED_API 0x030B0000 /* one build serves Python 3.11 and later */
#endif
#include <Python.h>

#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>

#if !defined(LIBJPEG_TURBO_VERSION_NUMBER) || LIBJPEG_TURBO_VERSION_NUMBER < 2001005
#error "libjpeg-turbo 2.1.5 or later is needed"
#endif

enum {
    CHANNELS = 3,
    MARGIN = 2,     /* extra columns on each side of the crop: the chroma sample that upsampling reads there */
    BLOCK_MAX = 16, /* columns of the widest MCU: the library starts at a multiple of the MCU's width */
    ROWS_AT_ONCE = 4,
};

typedef struct {
    uint8_t *data;
    ptrdiff_t stride;
    int left, top, columns, rows; /* the rectangle of the image; `data` has room for SLACK more columns */
    int to_end;                   /* read the rows below too, for the library's warnings */
} Crop;

enum { SLACK = 2 * MARGIN + BLOCK_MAX };

/* ---- Error handling: the first error of the library, or the first warning, stops decoding. ---- */

typedef struct {
    struct jpeg_error_mgr manager;
    jmp_buf failed;
    char message[JMSG_LENGTH_MAX]; /* the first warning, or the error */
} Errors;

static void fail(j_common_ptr info) {
    Errors *errors = (Errors *)info->err;
    if (errors->manager.num_warnings == 0) {
        errors->manager.format_message(info, errors->message);
    }
    longjmp(errors->failed, 1);
}

static void fail_on_warning(j_common_ptr info, int level) {
    if (level < 0) { /* 0 and above are trace messages */
        fail(info);
    }
}

static void count_warning(j_common_ptr info, int level) {
    Errors *errors = (Errors *)info->err;
    if (level < 0 && errors->manager.num_warnings++ == 0) {
        errors->manager.format_message(info, errors->message);
    }
}

/* ---- Decoding. ---- */

static int is_supported(const struct jpeg_decompress_struct *info) {
    const jpeg_component_info *components = info->comp_info;
    if (info->progressive_mode || info->arith_code || info->data_precision != 8 ||
        info->comps_in_scan != info->num_components) {
        return 0;
    }
    if (info->num_components == 1) {
        return info->jpeg_color_space == JCS_GRAYSCALE;
    }
    return info->num_components == CHANNELS && info->jpeg_color_space == JCS_YCbCr &&
           components[0].h_samp_factor <= 2 && components[0].v_samp_factor <= 2 && components[1].h_samp_factor == 1 &&
           components[1].v_samp_factor == 1 && components[2].h_samp_factor == 1 && components[2].v_samp_factor == 1;
}

/* Whether the data after the crop's last row contains no other markers than restarts up to EOI. Those rows are not
 * decoded; without such a marker, no decoder reports an error for them. */
static int has_intact_rest(const struct jpeg_decompress_struct *info) {
    const uint8_t *data = info->src->next_input_byte, *const end = data + info->src->bytes_in_buffer;
    const int restarts = info->restart_interval > 0;
    int marker = info->unread_marker; /* the marker that the library stopped at, or 0 */
    while (marker == 0 || (restarts && marker >= 0xD0 && marker <= 0xD7)) { /* FF 00 is a data byte FF, no marker */
        data = memchr(data, 0xFF, (size_t)(end - data));
        if (data == NULL || end - data < 2) {
            return 0;
        }
        marker = data[1];
        data += 2;
    }
    return marker == 0xD9;
}

/* Write the next `count` rows to `to`, `stride` bytes apart. */
static void read_rows(j_decompress_ptr info, uint8_t *to, ptrdiff_t stride, int count) {
    while (count > 0) {
        JSAMPROW rows[ROWS_AT_ONCE];
        const int wanted = count < ROWS_AT_ONCE ? count : ROWS_AT_ONCE;
        for (int i = 0; i < wanted; i++) {
            rows[i] = to + i * stride;
        }
        const int done = (int)jpeg_read_scanlines(info, rows, (JDIMENSION)wanted);
        to += done * stride;
        count -= done;
    }
}

/* Read the entropy-coded data of the rows below the crop, and what follows up to EOI, without computing pixels. The
 * library warns if they are damaged: damage further up shows only here if the data are taken for other blocks. */
static void read_to_end(j_decompress_ptr info) {
    const JDIMENSION left = info->output_height - info->output_scanline;
    if (left > 0) {
        const size_t row_bytes = (size_t)info->output_width * CHANNELS;
        uint8_t *row = info->mem->alloc_large((j_common_ptr)info, JPOOL_IMAGE, row_bytes);
        for (int i = 0; i < info->num_components; i++) {
            info->comp_info[i].component_needed = FALSE; /* no inverse DCT */
        }
        if (left > 1) { /* the library would not read rows that are skipped up to the last one */
            jpeg_skip_scanlines(info, left - 1);
        }
        read_rows(info, row, 0, 1);
    }
    jpeg_finish_decompress(info);
}

/* Decode the crop; return the image's column at which its rows start, or -1 if the file is not supported. */
static int decode_rows(j_decompress_ptr info, int width, int height, const Crop *crop) {
    jpeg_read_header(info, TRUE);
    if (!is_supported(info) || (int)info->image_width != width || (int)info->image_height != height) {
        return -1;
    }
    info->out_color_space = JCS_RGB;
    info->dct_method = JDCT_ISLOW;
    jpeg_start_decompress(info);
    const int right = crop->left + crop->columns, from = crop->left > MARGIN ? crop->left - MARGIN : 0;
    const int to = right < width - MARGIN ? right + MARGIN : width;
    JDIMENSION first = (JDIMENSION)from, columns = (JDIMENSION)(to - from);
    jpeg_crop_scanline(info, &first, &columns);
    if ((int)columns > crop->columns + SLACK || (int)first > crop->left) {
        return -1;
    }
    if (crop->top > 0) {
        jpeg_skip_scanlines(info, (JDIMENSION)crop->top);
    }
    read_rows(info, crop->data, crop->stride, crop->rows);
    if (crop->to_end) {
        read_to_end(info);
        return (int)first;
    }
    return has_intact_rest(info) ? (int)first : -1;
}

/* As `decode_rows`, from the bytes of the file; -1 also after an error or a warning. */
static int decode(const uint8_t *jpeg, size_t num_bytes, int width, int height, const Crop *crop) {
    struct jpeg_decompress_struct info = {0};
    Errors errors;
    info.err = jpeg_std_error(&errors.manager);
    errors.manager.error_exit = fail;
    errors.manager.emit_message = fail_on_warning;
    int start = -1;
    if (!setjmp(errors.failed)) {
        jpeg_create_decompress(&info);
        jpeg_mem_src(&info, jpeg, (unsigned long)num_bytes);
        start = decode_rows(&info, width, height, crop);
    }
    jpeg_destroy_decompress(&info);
    return start;
}

/* Read all entropy-coded data of a file without computing pixels. Return the number of warnings, with the first one in
 * `errors->message`; an error ends the reading and counts as one, and so does a size beyond `most_pixels`. */
static long count_warnings(const uint8_t *jpeg, size_t num_bytes, long long most_pixels, Errors *errors) {
    struct jpeg_decompress_struct info = {0};
    info.err = jpeg_std_error(&errors->manager);
    errors->manager.error_exit = fail;
    errors->manager.emit_message = count_warning;
    volatile long failed = 1;
    if (!setjmp(errors->failed)) {
        jpeg_create_decompress(&info);
        jpeg_mem_src(&info, jpeg, (unsigned long)num_bytes);
        jpeg_read_header(&info, TRUE);
        if ((long long)info.image_width * info.image_height <= most_pixels) {
            jpeg_read_coefficients(&info);
            jpeg_finish_decompress(&info);
            failed = 0;
        } else {
            snprintf(errors->message, sizeof errors->message, "%u x %u pixels", info.image_width, info.image_height);
        }
    }
    jpeg_destroy_decompress(&info);
    return errors->manager.num_warnings + failed;
}

/* ---- The Python interface. ---- */

static int as_crop(Crop *crop, const Py_buffer *view, int left, int top, int width, int height) {
    const Py_ssize_t *shape = view->shape;
    if (view->itemsize != 1 || view->ndim != 3 || shape[2] != CHANNELS || view->strides[2] != 1 ||
        view->strides[1] != CHANNELS || view->strides[0] < shape[1] * CHANNELS) {
        PyErr_SetString(PyExc_ValueError, "pixels is not uint8 (height, width, 3) with contiguous rows.");
        return 0;
    }
    const Py_ssize_t columns = shape[1] - SLACK;
    if (left < 0 || top < 0 || shape[0] < 1 || columns < 1 || left > width - columns || top > height - shape[0]) {
        PyErr_Format(PyExc_ValueError, "a crop of %zd x %zd at (%d, %d) is outside an image of %d x %d.", columns,
                     shape[0], left, top, width, height);
        return 0;
    }
    *crop = (Crop){view->buf, view->strides[0], left, top, (int)columns, (int)shape[0], 0};
    return 1;
}

PyDoc_STRVAR(decode_crop_doc,
"decode_crop(jpeg, pixels, width, height, left, top, to_end)\n--\n\n"
"Decode a rectangle of a JPEG of width x height pixels to `pixels`, which is SLACK columns wider than the rectangle.\n"
"Return the image's column at which the rows of `pixels` start, or -1 if the file is not supported.\n"
"Use it through wds_real.image.jpeg_crop.decode_crop.");

static PyObject *decode_crop(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *jpeg, *pixels;
    int width, height, left, top, to_end;
    if (!PyArg_ParseTuple(args, "OOiiiip", &jpeg, &pixels, &width, &height, &left, &top, &to_end)) {
        return NULL;
    }
    Py_buffer from, to;
    if (PyObject_GetBuffer(jpeg, &from, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    if (PyObject_GetBuffer(pixels, &to, PyBUF_STRIDES | PyBUF_WRITABLE) < 0) {
        PyBuffer_Release(&from);
        return NULL;
    }
    Crop crop;
    PyObject *result = NULL;
    if (as_crop(&crop, &to, left, top, width, height)) {
        int start;
        crop.to_end = to_end;
        Py_BEGIN_ALLOW_THREADS
        start = decode(from.buf, (size_t)from.len, width, height, &crop);
        Py_END_ALLOW_THREADS
        result = PyLong_FromLong(start);
    }
    PyBuffer_Release(&to);
    PyBuffer_Release(&from);
    return result;
}

PyDoc_STRVAR(warning_doc,
"warning(jpeg, most_pixels)\n--\n\n"
"Return the first warning or the error of libjpeg-turbo on the whole file, or None.\n"
"Use it through wds_real.image.jpeg_warnings.jpeg_warning.");

static PyObject *warning(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *jpeg;
    long long most_pixels;
    if (!PyArg_ParseTuple(args, "OL", &jpeg, &most_pixels)) {
        return NULL;
    }
    Py_buffer from;
    if (PyObject_GetBuffer(jpeg, &from, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    Errors errors;
    long count;
    Py_BEGIN_ALLOW_THREADS
    count = count_warnings(from.buf, (size_t)from.len, most_pixels, &errors);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&from);
    if (count == 0) {
        Py_RETURN_NONE;
    }
    return count == 1 ? PyUnicode_FromFormat("%s", errors.message)
                      : PyUnicode_FromFormat("%s (the first of %ld)", errors.message, count);
}

static PyMethodDef methods[] = {
    {"decode_crop", decode_crop, METH_VARARGS, decode_crop_doc},
    {"warning", warning, METH_VARARGS, warning_doc},
    {NULL, NULL, 0, NULL},
};

static int add_constants(PyObject *module) { return PyModule_AddIntConstant(module, "SLACK", SLACK); }

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)add_constants},
#ifdef Py_GIL_DISABLED
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_jpeg", "Decode a rectangle of a JPEG.", 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__jpeg(void) { return PyModuleDef_Init(&definition); }
