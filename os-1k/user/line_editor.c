/* line_editor.c - a line as it is typed: cursor keys, history, and Tab for names. */
#include "libc.h"

#define COLUMNS     80 /* of the terminal; the program can't ask for them */
#define HISTORY_MAX 16

#define CONTROL(letter) ((letter) - '@')

/* What a key means. Characters stand for themselves; these keys send a sequence, like ESC [ A. */
enum key {
    KEY_NONE = 0,
    KEY_ESCAPE = 27,
    KEY_BACKSPACE = 127,
    KEY_UP = 256,
    KEY_DOWN,
    KEY_RIGHT,
    KEY_LEFT,
    KEY_HOME,
    KEY_END,
    KEY_DELETE,
};

static struct {
    const char *prompt;
    char *text;
    int length, cursor; /* in bytes */
    line_names *names;
    int recalled; /* which line of the history is shown; history_count: the new one */
    char new_line[LINE_MAX];
} edit;

static char history[HISTORY_MAX][LINE_MAX]; /* the oldest first */
static int history_count;

/* ------------------------------------------------------------------ drawing */

static char drawing[2 * LINE_MAX + 256];
static size_t drawing_bytes;

static void draw(const char *text, int count)
{
    for (int i = 0; i < count && drawing_bytes < sizeof drawing; i++)
        drawing[drawing_bytes++] = text[i];
}

static void draw_text(const char *text)
{
    draw(text, (int)strlen(text));
}

static int character_length(int at)
{
    return utf8_length(&edit.text[at], (size_t)(edit.length - at));
}

/* Columns that a part of the line takes at most: a character that is not ASCII may take two. */
static int columns(int from, int to)
{
    int count = 0;

    for (int at = from; at < to; at += character_length(at))
        count += character_length(at) == 1 ? 1 : 2;
    return count;
}

/* Writes prompt and line, of a long line the part around the cursor. `again`: over what is there.
 */
static void line_draw(bool again)
{
    int room = COLUMNS - 1 - (int)strlen(edit.prompt), start = 0, end;

    while (columns(start, edit.cursor) > room)
        start += character_length(start);
    for (end = edit.cursor; end < edit.length; end += character_length(end))
        if (columns(start, end + character_length(end)) > room)
            break;
    drawing_bytes = 0;
    draw_text(again ? "\r" : "");
    draw_text(edit.prompt);
    draw(&edit.text[start], end - start);
    draw_text(again ? "\033[K" : "");
    if (edit.cursor <
        end) { /* only the terminal knows how wide a character is: it finds the place */
        draw_text("\r");
        draw_text(edit.prompt);
        draw(&edit.text[start], edit.cursor - start);
    }
    write_line(drawing, drawing_bytes, WRITE_LINE);
}

/* ------------------------------------------------------------------ editing */

static void erase(int from, int to)
{
    for (int i = to; i < edit.length; i++)
        edit.text[from + i - to] = edit.text[i];
    edit.length -= to - from;
    edit.cursor = from;
    line_draw(true);
}

/* Inserts text at the cursor; what does not fit is not taken. */
static void insert(const char *text, int count)
{
    if (edit.length + count > LINE_MAX - 1)
        return;
    for (int i = edit.length - 1; i >= edit.cursor; i--)
        edit.text[i + count] = edit.text[i];
    memcpy(&edit.text[edit.cursor], text, (size_t)count);
    edit.length += count;
    edit.cursor += count;
    if (edit.cursor == edit.length && (int)strlen(edit.prompt) + columns(0, edit.length) < COLUMNS)
        write_line(text, (size_t)count, WRITE_MORE);
    else
        line_draw(true);
}

/* Where the character before `at` begins. */
static int character_before(int at)
{
    int before = 0;

    while (before < at && before + character_length(before) < at)
        before += character_length(before);
    return before;
}

static int word_before(int at)
{
    while (at > 0 && edit.text[at - 1] == ' ')
        at--;
    while (at > 0 && edit.text[at - 1] != ' ')
        at--;
    return at;
}

static void cursor_move(int to)
{
    edit.cursor = to;
    line_draw(true);
}

/* ------------------------------------------------------------------ history */

static void history_add(void)
{
    if (edit.length == 0 ||
        (history_count > 0 && strcmp(history[history_count - 1], edit.text) == 0))
        return;
    if (history_count == HISTORY_MAX) {
        for (int i = 1; i < HISTORY_MAX; i++)
            memcpy(history[i - 1], history[i], LINE_MAX);
        history_count--;
    }
    memcpy(history[history_count++], edit.text, (size_t)edit.length + 1);
}

static void history_recall(int index)
{
    if (index < 0 || index > history_count)
        return;
    edit.text[edit.length] = '\0';
    if (edit.recalled == history_count)
        memcpy(edit.new_line, edit.text, (size_t)edit.length + 1);
    edit.recalled = index;
    text_copy(edit.text, index == history_count ? edit.new_line : history[index], LINE_MAX);
    edit.length = (int)strlen(edit.text);
    cursor_move(edit.length);
}

/* ------------------------------------------------------------------ names */

static bool begins_with(const char *name, const char *word, int count)
{
    return (int)strlen(name) >= count && memcmp(name, word, (size_t)count) == 0;
}

/* Prints all names that the word could become. */
static void names_list(bool first, const char *word, int count)
{
    const char *name;
    int column = 0;

    printf("\n");
    for (uint32_t i = 0; (name = edit.names(i, first)); i++) {
        if (!begins_with(name, word, count))
            continue;
        int width = (int)strlen(name) + 2;
        if (column > 0 && column + width > COLUMNS)
            printf("\n");
        column = column + width > COLUMNS ? width : column + width;
        printf("%s  ", name);
    }
    printf("\n");
    line_draw(false);
}

/* Completes the word before the cursor as far as the names agree. */
static void name_complete(void)
{
    char common[FILE_NAME_MAX] = "";
    int found = 0, start = edit.cursor, before;
    const char *name;

    while (start > 0 && edit.text[start - 1] != ' ')
        start--;
    for (before = start; before > 0 && edit.text[before - 1] == ' '; before--)
        continue;
    const char *word = &edit.text[start];
    int count = edit.cursor - start;
    for (uint32_t i = 0; (name = edit.names(i, before == 0)); i++) {
        if (!begins_with(name, word, count))
            continue;
        if (found++ == 0)
            text_copy(common, name, sizeof common);
        for (int j = 0; common[j] != '\0'; j++)
            if (common[j] != name[j])
                common[j] = '\0';
    }
    int more = (int)strlen(common) - count;
    if (found == 1)
        common[count + more++] = ' ';
    if (found > 0 && more > 0)
        insert(common + count, more);
    else if (found > 1)
        names_list(before == 0, word, count);
}

/* ------------------------------------------------------------------ keys */

/* A sequence so far: what it began with ('[' or 'O', ESC: nothing yet, 0: there is none). */
static char sequence;
static int sequence_number; /* the first number in it */
static bool sequence_more;  /* it has more than one number, or something unknown */

static enum key sequence_key(char last)
{
    static const enum key letters[] = {['A'] = KEY_UP,   ['B'] = KEY_DOWN, ['C'] = KEY_RIGHT,
                                       ['D'] = KEY_LEFT, ['F'] = KEY_END,  ['H'] = KEY_HOME};
    static const enum key numbers[] = {
        [1] = KEY_HOME, [3] = KEY_DELETE, [4] = KEY_END, [7] = KEY_HOME, [8] = KEY_END};

    if (last == '~')
        return sequence_number < 9 ? numbers[sequence_number] : KEY_NONE;
    return last <= 'H' ? letters[(int)last] : KEY_NONE;
}

/* The key that ends with this byte; KEY_NONE: it is not complete, or has no meaning here. */
static enum key key_decode(char byte)
{
    char begun = sequence;

    if (byte == KEY_ESCAPE) {
        sequence = KEY_ESCAPE;
        return KEY_NONE;
    }
    sequence = 0;
    if (begun == KEY_ESCAPE && (byte == '[' || byte == 'O')) {
        sequence = byte;
        sequence_number = 0;
        sequence_more = false;
        return KEY_NONE;
    }
    if (begun == '[' && byte >= ' ' && byte < '@') {
        sequence = '[';
        sequence_more = sequence_more || byte < '0' || byte > '9';
        if (!sequence_more && sequence_number < 100)
            sequence_number = sequence_number * 10 + byte - '0';
        return KEY_NONE;
    }
    if (begun == '[' && byte >= '@' && byte < KEY_BACKSPACE)
        return sequence_key(byte);
    if (begun == 'O' && ((byte >= 'A' && byte <= 'H') || (byte >= 'P' && byte <= 'S')))
        return sequence_key(byte);
    if (begun == 'O')
        insert("O", 1);                   /* no sequence: a person pressed Esc, then the letter */
    return (enum key)(unsigned char)byte; /* after ESC alone, a key like any other */
}

/* Takes the bytes of a character one by one, and drops what is not UTF-8. */
static void character_type(char byte)
{
    static char bytes[4];
    static int count;

    bytes[count++] = byte;
    int length = utf8_length(bytes, (size_t)count);
    if (length == UTF8_PART)
        return;
    bool alone = count == 1;
    count = 0;
    if (length > 0)
        insert(bytes, length);
    else if (!alone) /* what came before was cut off; this may begin a new one */
        character_type(byte);
}

/* Does what an editing key asks for; false: it ends the line. */
static bool key_press(enum key key)
{
    switch ((int)key) {
    case KEY_NONE:
        break;
    case '\n':
    case '\r':
    case INTERRUPT_KEY:
        return false;
    case CONTROL('D'): /* at an empty line the input's end */
        if (edit.length == 0)
            return false;
        /* fall through */
    case KEY_DELETE:
        if (edit.cursor < edit.length)
            erase(edit.cursor, edit.cursor + character_length(edit.cursor));
        break;
    case CONTROL('H'):
    case KEY_BACKSPACE:
        if (edit.cursor > 0)
            erase(character_before(edit.cursor), edit.cursor);
        break;
    case CONTROL('U'):
        erase(0, edit.cursor);
        break;
    case CONTROL('K'):
        erase(edit.cursor, edit.length);
        break;
    case CONTROL('W'):
        erase(word_before(edit.cursor), edit.cursor);
        break;
    case CONTROL('A'):
    case KEY_HOME:
        cursor_move(0);
        break;
    case CONTROL('E'):
    case KEY_END:
        cursor_move(edit.length);
        break;
    case CONTROL('B'):
    case KEY_LEFT:
        cursor_move(character_before(edit.cursor));
        break;
    case CONTROL('F'):
    case KEY_RIGHT:
        if (edit.cursor < edit.length)
            cursor_move(edit.cursor + character_length(edit.cursor));
        break;
    case CONTROL('P'):
    case KEY_UP:
        history_recall(edit.recalled - 1);
        break;
    case CONTROL('N'):
    case KEY_DOWN:
        history_recall(edit.recalled + 1);
        break;
    case CONTROL('L'):
        write_line("\033[H\033[2J", 7, WRITE_MORE);
        line_draw(true);
        break;
    case '\t':
        if (edit.names)
            name_complete();
        break;
    default:
        character_type((char)key);
    }
    return true;
}

int getline_with(const char *prompt, char line[LINE_MAX], line_names *names)
{
    enum key key = KEY_NONE;
    char byte;
    int count;

    edit.prompt = prompt;
    edit.text = line;
    edit.names = names;
    edit.length = edit.cursor = 0;
    edit.recalled = history_count;
    line_draw(false);
    while ((count = read_line(&byte, 1)) == 1 || count == ERROR_OUTPUT) {
        if (count == ERROR_OUTPUT) {
            line_draw(false);
            continue;
        }
        key = key_decode(byte);
        if (!key_press(key))
            break;
    }
    line[edit.length] = '\0';
    printf(key == INTERRUPT_KEY ? "^C\n" : "\n");
    if (key == INTERRUPT_KEY)
        return LINE_INTERRUPTED;
    if (edit.length == 0 && (count != 1 || key == CONTROL('D')))
        return LINE_END;
    history_add();
    return edit.length;
}

int getline(const char *prompt, char line[LINE_MAX])
{
    return getline_with(prompt, line, NULL);
}
