# Stand-ins for the shell functions of OpenWrt's base-files, procd and jshn, as far as
# rootfs/etc/init.d/culvert uses them. They print what they are told. The test sets UCI_FILE, the
# configuration to read; PIDS, the answers of procd to "which pid?", one after the other; and ENDING, the
# folder of a process that is gone after the next sleep.

config_load() { [ -r "$UCI_FILE" ]; }

config_get() {
	local value
	value="$(sed -n "s/^[[:space:]]*option $3 '\(.*\)'\$/\1/p" "$UCI_FILE")"
	eval "$1=\"\${value:-\$4}\""
}

config_get_bool() {
	local flag
	config_get flag "$2" "$3"
	case "$flag" in
	1 | on | true | yes | enabled) eval "$1=1" ;;
	0 | off | false | no | disabled) eval "$1=0" ;;
	*) eval "$1=$4" ;;
	esac
}

uci_load_validate() { echo "validate $*"; }
logger() { echo "logger $*"; }

for call in procd_open_instance procd_set_param procd_close_instance procd_open_data \
	procd_close_data procd_kill procd_send_signal procd_set_config_changed procd_add_reload_trigger \
	json_add_array json_add_object json_add_string json_close_object json_close_array; do
	eval "$call() { echo \"$call\${*:+ \$*}\"; }"
done

procd_add_validation() { "$@"; }

# What rc.common makes of the functions of an init script.
start() {
	start_service
	service_started
}

stop() {
	stop_service
	procd_kill culvert
	service_stopped
}

sleep() {
	echo "sleep $*"
	[ -z "$ENDING" ] || rm -rf "$ENDING"
}

ubus() { :; }

jsonfilter() {
	[ "$2" = -i ] || {
		# Each question for the pid is answered by the next of PIDS; it is asked in a subshell.
		head -n 1 "$PIDS"
		sed -i 1d "$PIDS"
		return
	}
	jq -r "${5#@} // empty" "$3" 2>/dev/null
}
