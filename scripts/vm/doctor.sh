# doctor.sh: what `fanq doctor` says of real nft rules, with and without an engine; guest.sh reads it in, after
# steps.sh.
#
# Role: one rule at a time by nft itself, four CPUs and four queues, and what doctor has to say of them: nobody reads,
# too few read, no bypass, no fanout; and nothing where all is sound.
# Invariant: the rule and the engine are gone at the end. A doctor that lost its patience with a slow nft is asked
# again.
# Does not: judge what doctor says of this guest beyond rules and queues; that is shown as evidence.

DOCTOR_TRIES=6

check_doctor() {
    doctor_rule fanout,bypass
    doctor_look unread
    doctor_says unread queue-served 'warn queues0-3:packetspassunseen,noprogramreadsthem'
    doctor_says unread queue-bypass 'ok .*'
    check doctor-unread-exit "status $status, report $(doctor_status)" doctor_exits 1 2

    start_engine doctor-sound "$FANQ" run --queues 0-3 --summary json
    doctor_look sound
    value=$(doctor_ids 'queue[s]*-[a-z-]*' | grep -c ':ok$')
    others=$(doctor_ids 'queue[s]*-[a-z-]*' | grep -v ':ok$' | tr '\n' ' ')
    check doctor-sound-queues "$value ok, ${others:-none other}" [ "${value:-0}" -ge 12 -a -z "$others" ]
    # The release of the guest's kernel is not ours to choose.
    others=$(doctor_ids '[a-z0-9-]*' | grep -E ':(warn|fail)$' | grep -v '^kernel-cve-' | tr '\n' ' ')
    check doctor-sound "${others:-no warning, no failure}" [ -z "$others" ]

    doctor_rule fanout
    doctor_look no-bypass
    doctor_says no-bypass queue-bypass 'warn aruledropseverythingwhilenoprogramreads'
    doctor_says no-bypass queue-served 'ok .*'
    doctor_rule bypass
    doctor_look no-fanout
    doctor_says no-fanout queue-fanout 'warn arulewithseveralqueueshasnofanout'
    doctor_says no-fanout queue-bypass 'ok .*'
    stop_engine doctor-sound

    doctor_rule fanout
    doctor_look dropped
    doctor_says dropped queue-served 'fail queues0-3:packetsaredropped,noprogramreadsthem'
    check doctor-dropped-exit "status $status, report $(doctor_status)" doctor_exits 2

    doctor_rule fanout,bypass
    start_engine doctor-half "$FANQ" run --queues 0-1 --summary json
    doctor_look half
    doctor_says half queue-served 'warn queues2-3:packetspassunseen,noprogramreadsthem'
    doctor_says half queue-fed 'ok .*'
    stop_engine doctor-half
    bounded 20 engine $NFT delete table inet judged >rules.out 2>&1
    check doctor-removed "exit status $? $(cat rules.out)" [ ! -s rules.out ]
}

doctor_rule() { # FLAGS: the only rule from now on
    bounded 20 engine $NFT -f - >rules.out 2>&1 <<END
table inet judged
delete table inet judged
table inet judged {
    chain incoming { type filter hook input priority 0; udp dport $PORT queue flags $1 to 0-3; }
}
END
    check "doctor-rule-$1" "exit status $? $(cat rules.out)" [ ! -s rules.out ]
}

doctor_look() { # NAME: sets status; the report is in doctor.json
    for _ in $(seq $DOCTOR_TRIES); do
        bounded 60 engine "$FANQ" doctor --json >doctor.json 2>doctor.err
        status=$?
        case "$(doctor_found rules-seen)" in ok*) break ;; esac
    done
    check "doctor-$1-sees" "$(doctor_found rules-seen) $(tail -n 1 doctor.err)" \
        [ "$(doctor_found rules-seen)" = "ok 1queuerulefound" ]
}

doctor_says() { # NAME ID PATTERN: of its status and title, which has lost its blanks
    value=$(doctor_found "$2")
    check "doctor-$1-$2" "${value:-no such check}" matches "$value" "^$3\$"
}

matches() { # TEXT PATTERN
    printf '%s\n' "$1" | grep -q "$2"
}

doctor_found() { # ID: `STATUS TITLE`
    flat doctor.json | grep -o "\"id\":\"$1\",\"subject\":[^,]*,\"status\":\"[a-z]*\",\"title\":\"[^\"]*\"" |
        sed 's/.*"status":"\([a-z]*\)","title":"\(.*\)"/\1 \2/'
}

doctor_ids() { # PATTERN: `ID:STATUS` of each check whose id this is
    flat doctor.json | grep -o "\"id\":\"$1\",\"subject\":[^,]*,\"status\":\"[a-z]*\"" |
        sed 's/"id":"\([^"]*\)".*"status":"\([a-z]*\)"/\1:\2/'
}

doctor_status() {
    flat doctor.json | grep -o '"status":"[a-z]*"' | head -n 1 | cut -d '"' -f 4
}

# Whether the exit status is that of the report, and one of these.
doctor_exits() { # STATUSES...
    case "$(doctor_status)" in ok) said=0 ;; warn) said=1 ;; fail) said=2 ;; *) said=none ;; esac
    [ "$status" = "$said" ] && matches " $* " " $status "
}
